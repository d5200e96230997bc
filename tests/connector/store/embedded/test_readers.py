"""Readers beside a writer: none is refused, none sees a batch halfway or time go back, each sees what is committed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bartizan_connector.store.collection import Collection, FieldSpec, Head
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.rows import COLLECTION, queries, row
from tests.connector.store.embedded.test_kills import ROOT

TEXT = FieldSpec(name="text", type="string", default="")
WORDED = Collection(name="read", legs=COLLECTION.legs, fields=(*COLLECTION.fields, TEXT))
BATCHES, SIZE, READERS = 120, 40, 4
_KEPT = 60
"""Documents that every batch replaces or deletes in part."""


def main(path: Path) -> None:
    """A reader: looks as often as it can until it sees the last batch; prints what it has found wrong."""
    backend = EmbeddedBackend(path, index="hnsw")
    store = backend.open(WORDED, create=False)
    assert store.words is not None
    wrong: list[str] = []
    last = looks = 0
    while last < BATCHES:
        (hits,) = store.search("dense", queries([0, 0, 1, 0]), 1000)
        by_vector = {hit.fields["year"] for hit in hits if hit.id.startswith("all")}
        by_words = {hit.fields["year"] for hit in store.words.search("everyone", 1000)}
        rows = [
            row.fields["year"]
            for document in store.get([f"all{i}" for i in range(SIZE)]).values()
            for row in document.rows
        ]
        for what, batches in (("vectors", by_vector), ("words", by_words), ("documents", set(rows))):
            if len(batches) != 1:
                wrong.append(f"{what}: {sorted(batches)}")
                continue
            (seen,) = batches
            if int(seen) < last:
                wrong.append(f"{what}: {seen} after {last}")
            last = int(seen)
        if len(hits) != len({(hit.id, hit.chunk) for hit in hits}):
            wrong.append("a row twice")
        looks += 1
    backend.close()
    print(json.dumps({"wrong": wrong[:10], "looks": looks}))


@pytest.mark.packaging
def test_four_readers_beside_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "index.bartizan"
    writer, watcher = EmbeddedBackend(path), EmbeddedBackend(path)
    store = writer.open(WORDED)

    def write(number: int) -> None:
        common = [
            row(f"all{i}", [i, 0, number + 1, 0], text="everyone", year=number, version=number) for i in range(SIZE)
        ]
        store.upsert([*common, row(f"new{number}", [number, 0, 0, 0], text=f"batch{number}", version=number)])
        store.delete([Head(id=f"new{number - 3}", version=number)])

    write(1)
    folders = [ROOT / name for name in ("connector", "encoders", "training", "triton_models")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}
    words = [sys.executable, "-m", "tests.connector.store.embedded.test_readers", str(path)]
    pipe = subprocess.PIPE
    readers = [subprocess.Popen(words, cwd=ROOT, env=environment, stdout=pipe, text=True) for _ in range(READERS)]
    other = watcher.open(WORDED, create=False)
    for number in range(2, BATCHES + 1):
        write(number)
        (hits,) = other.search("dense", queries([1, 0, 0, 0]), 500)
        assert f"new{number}" in {hit.id for hit in hits}, "what is committed is found by the next search"
        assert f"new{number - 3}" not in {hit.id for hit in hits}
        time.sleep(0.01)
    for reader in readers:
        told, _ = reader.communicate(timeout=120)
        assert reader.returncode == 0
        answer = json.loads(told)
        assert answer["wrong"] == []
        assert answer["looks"] > 1
    writer.close()
    watcher.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_a_reader_maps_the_file_while_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each change SQLite gives up the mapping; to make it anew each time would be slower than to read."""
    monkeypatch.setattr("bartizan_connector.store.embedded.place._QUIET_SECONDS", 0.3)
    writer, reader = (EmbeddedBackend(tmp_path / "index.bartizan") for _ in range(2))
    written = writer.open(COLLECTION)
    written.upsert([row("a", [1, 0, 0, 0])])
    read = reader.open(COLLECTION)

    def mapped() -> bool:
        with reader._place.reading() as connection:
            return bool(connection.execute("PRAGMA mmap_size").fetchone()[0])

    assert mapped()
    assert len(read.search("dense", queries([1, 0, 0, 0]), 5)[0]) == 1
    assert mapped(), "the first look is no change"
    written.upsert([row("b", [0, 1, 0, 0])])
    assert len(read.search("dense", queries([1, 0, 0, 0]), 5)[0]) == 2
    assert not mapped()
    time.sleep(0.35)
    assert mapped()
    written.close()
    read.close()
