"""Files for an import hold what they were given, type by type, and no more than they may."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.collection import Head, Row
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.ledger import Entry, Ledger
from bartizan_connector.store.milvus.parquet import Files
from bartizan_connector.store.milvus.schema import entity_of, schema_of
from bartizan_connector.testing.rows import COLLECTION, HOSTILE, row

LARGE = 2**62 + 1


def rows(count: int) -> list[Row]:
    return [
        row(
            f"{HOSTILE[n % len(HOSTILE)]}{n}",
            [n, 0.1, -1, 1e-30],
            title=HOSTILE[n % 7],
            year=LARGE - n,
            price=0.1,
            fresh=n % 2 > 0,
        )
        for n in range(count)
    ]


def read(files: Files) -> list[dict[str, Any]]:
    return [line for path in files.paths for line in parquet.read_table(path).to_pylist()]


def test_every_field_comes_back_as_it_was_given(tmp_path: Path) -> None:
    files = Files(tmp_path, "rows", schema_of(COLLECTION))
    given = [entity_of(each, COLLECTION) for each in rows(100)]
    files.add(given[:60])
    files.add([])
    files.add(given[60:])
    files.close()
    (path,) = files.paths
    assert (path.name, files.rows) == ("rows-0.parquet", 100)
    back = read(files)
    assert [np.float32(line.pop("dense")).tolist() for line in back] == [each.pop("dense").tolist() for each in given]
    assert back == given
    types = {field.name: str(field.type) for field in parquet.read_schema(path)}
    assert types == {
        "pk": "string",
        "id": "string",
        "chunk": "int64",
        "title": "string",
        "year": "int64",
        "price": "double",
        "fresh": "bool",
        "dense": "list<element: float>",
    }


def test_a_file_is_no_longer_than_it_may_be_and_no_row_is_in_two(tmp_path: Path) -> None:
    files = Files(tmp_path, "rows", schema_of(COLLECTION), most_bytes=20_000)
    given = [entity_of(each, COLLECTION) for each in rows(1000)]
    for start in range(0, 1000, 50):
        files.add(given[start : start + 50])
    files.close()
    assert len(files.paths) > 3
    assert [line["pk"] for line in read(files)] == [each["pk"] for each in given]
    assert all(parquet.read_table(path).nbytes <= 20_000 for path in files.paths)


def test_a_ledger_is_written_with_all_that_it_knows(tmp_path: Path) -> None:
    ledger = Ledger(Connection("http://127.0.0.1:9", None, 1.0), "any")
    files = Files(tmp_path, "heads", ledger.schema())
    head = Head(id="a", version=LARGE, hash="h", origin="file#1", offset=7)
    files.add([ledger.entity(Entry(head, 3)), ledger.entity(Entry(Head(id="b", version=1, deleted=True)))])
    files.close()
    first, second = read(files)
    assert (first["version"], first["chunks"], first["more"]) == (LARGE, 3, '{"origin": "file#1", "offset": 7}')
    assert (second["deleted"], second["hash"], second["dummy"]) == (True, "", [0.0, 0.0])


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    files = Files(tmp_path / "nowhere", "rows", schema_of(COLLECTION))
    with pytest.raises(Stop, match=r"cannot write files into .*nowhere: .*what was encoded is kept"):
        files.add([entity_of(each, COLLECTION) for each in rows(1)])
