"""MilvusBackend on a Milvus Lite file: the suite, the oracle's answers, the lock, and a process that is killed."""

import fcntl
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient
from pymilvus.client.connection_manager import ConnectionManager

from bartizan_connector import MemoryBackend
from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg
from bartizan_connector.store.milvus import MilvusBackend, lite
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.store.milvus.writing import Writer
from bartizan_connector.testing.backend import BackendSuite
from bartizan_connector.testing.rows import COLLECTION, DENSE, FIELDS, NARROW, TERMS, found, queries, row
from tests.connector.store.congruence import IDS, assert_congruent, random_document, random_filter, random_queries

LEGS = Collection(name="congruence", legs=(DENSE, TERMS, NARROW), fields=FIELDS)


@pytest.mark.packaging
class TestMilvusLite(BackendSuite):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> MilvusBackend:
        return MilvusBackend(str(self.folder / "index.db"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


@pytest.mark.packaging
@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_the_oracle_does_after_any_writes(path: Path, seed: int) -> None:
    backend = MilvusBackend(str(path))
    assert_congruent(backend, LEGS, seed=seed, steps=40)
    backend.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """One set of rows in the back-end and in the oracle."""
    backend, oracle = MilvusBackend(str(tmp_path_factory.mktemp("filters") / "index.db")), MemoryBackend()
    dice = random.Random(0)
    rows = [row for i in range(60) for row in random_document(dice, COLLECTION, f"{i}{dice.choice(IDS)}", 1)]
    stores = backend.open(COLLECTION), oracle.open(COLLECTION)
    for store in stores:
        store.upsert(rows)
    yield stores
    backend.close()


@pytest.mark.packaging
@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_rendered_filter_passes_exactly_what_matches_passes(pair: tuple[Store, Store], dice: random.Random) -> None:
    filter = random_filter(dice, depth=4)
    vectors = random_queries(dice, DENSE, 1)
    answers = [
        (
            each.search("dense", vectors, 500, filter),
            each.count(filter),
            sorted(document.id for document in each.scan(filter)),
        )
        for each in pair
    ]
    assert answers[0] == answers[1]


def test_a_graph_index_finds_what_exact_search_finds(path: Path) -> None:
    dice = np.random.default_rng(0)
    leg = Leg(name="dense", kind="dense", dim=32, space_id=DENSE.space_id)
    collection = Collection(name="graph", legs=(leg,), fields=FIELDS)
    values = dice.normal(size=(1100, 32)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    backend, oracle = MilvusBackend(str(path), index="hnsw"), MemoryBackend()
    store, exact = backend.open(collection), oracle.open(collection)
    for each in (store, exact):
        each.upsert([row(f"d{i}", value) for i, value in enumerate(values[:1000])])
    vectors = queries(*values[1000:])
    overlap = [
        len(set(found(got)) & set(found(wanted)))
        for got, wanted in zip(store.search("dense", vectors, 10), exact.search("dense", vectors, 10), strict=True)
    ]
    assert sum(overlap) / (10 * len(overlap)) >= 0.99
    backend.close()


def test_everything_is_there_after_closing_and_opening_again(path: Path) -> None:
    first = MilvusBackend(str(path))
    store = first.open(COLLECTION)
    store.upsert([row("a", [1, 2, 3, 4], title="kept"), row("b", [1, 0, 0, 0])])
    store.delete([Head(id="b", version=2, origin="docs/1", offset=5)])
    first.close()
    second = MilvusBackend(str(path))
    assert second.aliases() == {COLLECTION.name: store.physical_name}
    again = second.open(COLLECTION, create=False)
    assert again.physical_name == store.physical_name
    (hits,) = again.search("dense", queries([1, 1, 1, 1]), 10)
    assert [(hit.id, hit.score, hit.fields["title"]) for hit in hits] == [("a", 10.0, "kept")]
    assert again.heads(["a", "b"])["b"] == Head(id="b", version=2, deleted=True, origin="docs/1", offset=5)
    second.close()


def test_another_tower_is_refused_by_the_collection_on_disk(path: Path) -> None:
    first = MilvusBackend(str(path))
    first.open(COLLECTION)
    first.close()
    other = COLLECTION.model_copy(update={"legs": (DENSE.model_copy(update={"space_id": "another"}),)})
    with pytest.raises(SpaceMismatch) as raised:
        MilvusBackend(str(path)).open(other, create=False)
    assert raised.value.exit_code == 3
    assert DENSE.space_id in str(raised.value)


def test_two_back_ends_of_one_process_share_a_file_and_the_last_one_frees_it(path: Path) -> None:
    first, second = MilvusBackend(str(path)), MilvusBackend(str(path))
    one, other = first.open(COLLECTION), second.open(COLLECTION)
    one.upsert([row("a", [1, 0, 0, 0])])
    first.close()
    assert other.heads(["a"])["a"].version == 1
    assert not _is_free(path)
    second.close()
    assert _is_free(path)


def test_a_file_that_is_closed_keeps_no_connection(path: Path) -> None:
    def connections() -> int:
        return int(ConnectionManager.get_instance().get_stats()["total_connections"])

    before = connections()
    for _ in range(3):
        with closing(MilvusBackend(str(path))) as backend:
            backend.open(COLLECTION)
            assert connections() == before + 1
        assert connections() == before


def test_a_store_that_is_opened_while_the_last_one_closes_writes_beside_those_that_follow(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(MilvusBackend(str(path))) as backend:
        first, remarks = backend.open(COLLECTION), Indexes.remarks
        first.upsert([row("a", [1, 0, 0, 0])])

        def closing_first(indexes: Indexes) -> Sequence[str]:
            first.close()
            return remarks(indexes)

        monkeypatch.setattr(Indexes, "remarks", closing_first)
        for number, store in enumerate((backend.open(COLLECTION), backend.open(COLLECTION))):
            store.upsert([row(f"b{number}", [1, 0, 0, 0])])
        assert store.count() == 3


@pytest.mark.packaging
def test_a_file_in_use_by_another_process_is_a_retry_that_says_what_to_do(path: Path) -> None:
    backend = MilvusBackend(str(path))
    backend.open(COLLECTION)
    program = f"""
import sys
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.base.errors import Retry
from bartizan_connector.testing.rows import COLLECTION
try:
    MilvusBackend({str(path)!r}).open(COLLECTION)
except Retry as error:
    print(error)
    sys.exit(error.exit_code)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 4, ran.stderr
    assert "in use by another process" in ran.stdout
    assert "[backend] uri" in ran.stdout
    assert ran.stderr == ""
    backend.close()
    assert _is_free(path)


def test_a_failed_open_leaves_the_file_free(path: Path) -> None:
    with pytest.raises(WrongUse, match="no Milvus Lite file"):
        MilvusBackend(str(path)).open(COLLECTION, create=False)
    assert not path.exists()
    for name in ("like", "IS", "Timestamp"):
        with pytest.raises(WrongUse, match=name):
            MilvusBackend(str(path)).open(COLLECTION.model_copy(update={"fields": (FieldSpec(name=name, type="int"),)}))
    assert _is_free(path)


def test_a_plain_file_in_its_place_is_refused(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00")
    with pytest.raises(WrongUse, match="older Milvus Lite"):
        MilvusBackend(str(path)).open(COLLECTION)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WrongUse, match="something else"):
        MilvusBackend(str(tmp_path)).open(COLLECTION)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_collection_that_carries_no_contract_is_refused(path: Path) -> None:
    client = MilvusClient(lite.serve(path, create=True))
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection(COLLECTION.name, schema=schema)
    backend = MilvusBackend(str(path))
    with pytest.raises(Stop, match="not made by Bartizan"):
        backend.open(COLLECTION)
    assert client.list_collections() == [COLLECTION.name]
    client.close()
    lite.release(path)


def test_a_ledger_without_rows_is_not_believed(path: Path) -> None:
    """Its heads would make the next ingest skip documents that are not there."""
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    client = MilvusClient(lite.serve(path, create=False))
    client.drop_collection(store.physical_name)
    assert client.list_collections() == [f"{store.physical_name}__heads"]
    backend.close()
    assert backend.open(COLLECTION).heads(["a"]) == {}
    backend.close()
    client.close()
    lite.release(path)


def test_rows_without_their_ledger_are_refused(path: Path) -> None:
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    client = MilvusClient(lite.serve(path, create=False))
    client.drop_collection(f"{store.physical_name}__heads")
    with pytest.raises(Stop, match="lost its ledger") as raised:
        backend.open(COLLECTION)
    assert "drop" not in str(raised.value)
    assert backend.collections() == {store.physical_name: COLLECTION}
    backend.close()
    client.close()
    lite.release(path)


@pytest.mark.parametrize("dies_at", ["ledger", "rows", "remove"])
def test_chunks_of_a_write_that_was_cut_off_do_not_outlive_the_next_one(
    path: Path, dies_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies inside the write of five chunks; what comes next is a newer, shorter version."""
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(2)])
    step = {"ledger": "_write_rows", "rows": "_remove_rows", "remove": "_complete"}[dies_at]
    with monkeypatch.context() as patch:
        patch.setattr(Writer, step, _die)
        with pytest.raises(KeyboardInterrupt):
            store.upsert([row("a", [1, 0, 0, 0], chunk=chunk, version=2) for chunk in range(5)])
    assert store.heads(["a"])["a"].version == 1
    store.upsert([row("a", [1, 0, 0, 0], version=3)])
    (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filters.parse("id == 'a'"))
    assert found(hits) == [("a", 0)]
    backend.close()


def test_an_unfinished_write_of_a_new_document_leaves_it_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_complete", _die)
        with pytest.raises(KeyboardInterrupt):
            store.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(3)])
    assert store.heads(["a"]) == {}
    store.delete([Head(id="a", version=2)])
    (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10)
    assert hits == []
    backend.close()


@pytest.mark.packaging
def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    program = f"""
import os, signal
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.rows import COLLECTION, row
from bartizan_connector.store.collection import Head
backend = MilvusBackend({str(path)!r})
store = backend.open(COLLECTION)
store.upsert([row(f"d{{i}}", [i, 0, 0, 0]) for i in range(300)])
store.delete([Head(id="d299", version=2)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION, create=False)
    (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1000)
    assert found(hits) == [(f"d{i}", 0) for i in range(298, -1, -1)]
    heads = store.heads([f"d{i}" for i in range(300)])
    assert len(heads) == 300
    assert heads["d299"].deleted
    backend.close()


@pytest.mark.packaging
def test_an_index_file_that_was_cut_off_by_kill_9_is_made_anew(path: Path) -> None:
    program = f"""
import os, pathlib, signal, time
from bartizan_connector.store.milvus import MilvusBackend, lite
from bartizan_connector.testing.rows import COLLECTION, row
backend = MilvusBackend({str(path)!r})
store = backend.open(COLLECTION)
store.upsert([row(f"d{{i}}", [i, 0, 0, 0]) for i in range(300)])
store._writer.flush()
files = []
while len(files) < 2:  # Milvus Lite makes them in the background
    time.sleep(0.01)
    files = [file for file in pathlib.Path({str(path)!r}).rglob("*.idx") if file.stat().st_size > 100]
for file in files:
    os.truncate(file, 100)
    print(file.name)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-uc", program], timeout=60, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.count("idx") == 2
    for _ in range(2):
        backend = MilvusBackend(str(path))
        store = backend.open(COLLECTION, create=False)
        assert len(store.search("dense", queries([1, 0, 0, 0]), 1000)[0]) == 300
        backend.close()


def test_a_collection_that_was_being_made_at_kill_9_is_made_anew(path: Path) -> None:
    for name in ("suite__01234567", "suite__01234567__heads"):
        (path / "collections" / name).mkdir(parents=True)
    (path / "LOCK").touch()
    (path / lite._OPEN_MARK).touch()
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    assert store.heads(["a"])["a"].version == 1
    backend.close()


def test_a_server_that_is_down_is_a_retry_that_names_it_at_once() -> None:
    backend = MilvusBackend("http://user:secret@127.0.0.1:1", timeout=30)
    begun = time.monotonic()
    with pytest.raises(
        Retry, match=r"http://127\.0\.0\.1:1 is unreachable: .*is \[backend\] uri its address"
    ) as raised:
        backend.open(COLLECTION)
    assert time.monotonic() - begun < 8
    assert raised.value.exit_code == 4
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["http://", "http://127.0.0.1:port", "http://:19530", "http://[::1", "ftp://x:19530"])
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(WrongUse, match="as a Milvus address"):
        MilvusBackend(uri).open(COLLECTION)


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _is_free(path: Path) -> bool:
    """Whether nobody, this process included, holds the lock of the file."""
    with (path / "LOCK").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
