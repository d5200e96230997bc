"""MilvusBackend on the real Milvus server that the PyPI package `milvus` carries, killed and started again."""

import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from bartizan_connector import MemoryBackend
from bartizan_connector.base.errors import Reject, Retry, SpaceMismatch, Stop
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg
from bartizan_connector.store.milvus import MilvusBackend, schema
from bartizan_connector.testing.backend import BackendSuite
from bartizan_connector.testing.rows import COLLECTION, DENSE, FIELDS, NARROW, TERMS, found, named, queries, row
from tests.connector.store.congruence import IDS, assert_congruent, random_document, random_filter, random_queries
from tests.servers.milvus import MilvusServer, milvus_server

pytestmark = pytest.mark.server

T = TypeVar("T")

AT_ONCE = 8.0
"""Seconds in which a lost server is told, whatever the deadline."""

NO_SPARSE = pytest.mark.xfail(strict=True, raises=Stop, reason="the server is 2.3.5, sparse vectors came with 2.4")
ONE_VECTOR = pytest.mark.xfail(strict=True, raises=Stop, reason="the server is 2.3.5, several vectors came with 2.4")


class TestMilvusServer(BackendSuite):
    settles = 1.5

    @pytest.fixture(autouse=True)
    def _on_a_server(self, milvus: MilvusServer) -> None:
        self.uri = milvus.uri

    def make(self) -> MilvusBackend:
        """Making a collection takes seconds, so one is emptied behind the back-end's back; all others are dropped."""
        backend = MilvusBackend(self.uri, consistency="Strong")
        kept = backend.aliases().get(COLLECTION.name)
        for physical, collection in backend.collections().items():
            if collection.name.startswith("suite") and (physical != kept or collection != COLLECTION):
                backend.drop(physical)
        if kept in backend.collections():
            client = MilvusClient(self.uri, timeout=30)
            client.delete(kept, filter='pk != ""', timeout=30)
            client.delete(f"{kept}__heads", filter="version >= -1", timeout=30)  # all but who writes
            client.close()
        return backend

    @NO_SPARSE
    def test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(self, backend: Backend) -> None:
        super().test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(backend)

    @NO_SPARSE
    def test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(self, backend: Backend) -> None:
        super().test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(backend)

    @NO_SPARSE
    def test_sparse_vectors_come_back_as_they_were_given(self, backend: Backend) -> None:
        super().test_sparse_vectors_come_back_as_they_were_given(backend)

    @pytest.mark.parametrize(
        "second",
        [pytest.param(NARROW, marks=ONE_VECTOR), pytest.param(TERMS, marks=NO_SPARSE)],
        ids=["two dense", "dense and sparse"],
    )
    def test_legs_of_several_towers_keep_to_their_spaces(self, backend: Backend, second: Leg) -> None:
        super().test_legs_of_several_towers_keep_to_their_spaces(backend, second)


@pytest.fixture
def backend(milvus: MilvusServer) -> Iterator[MilvusBackend]:
    backend = MilvusBackend(milvus.uri, consistency="Strong")
    yield backend
    backend.close()


def test_it_answers_as_the_oracle_does_after_any_writes(backend: MilvusBackend) -> None:
    assert_congruent(backend, named("congruence"), seed=1, steps=30)


def test_a_rendered_filter_passes_exactly_what_matches_passes(milvus: MilvusServer, backend: MilvusBackend) -> None:
    dice = random.Random(2)
    oracle, collection = MemoryBackend(), named("rendered")
    rows = [row for i in range(60) for row in random_document(dice, collection, f"{i}{dice.choice(IDS)}", 1)]
    exact = oracle.open(collection)
    for each in (backend.open(collection), exact):
        each.upsert(rows)
        assert len(each.search("dense", queries([1, 0, 0, 0]), 500)[0]) == len({(r.id, r.chunk) for r in rows})
    eventually = MilvusBackend(milvus.uri, consistency="Eventually")
    reader = eventually.open(collection, create=False)  # all is visible by now, and asking is 100 times faster
    for i in range(300):
        filter, vectors = random_filter(dice, depth=4), random_queries(dice, DENSE, 1)
        wanted = exact.search("dense", vectors, 500, filter)
        assert reader.search("dense", vectors, 500, filter) == wanted, filter
        assert i % 10 or reader.count(filter) == exact.count(filter), filter
    eventually.close()


def test_its_graph_index_finds_what_exact_search_finds(milvus: MilvusServer) -> None:
    """Closing flushes, so the second back-end searches the graph and not the growing segment."""
    dice = np.random.default_rng(0)
    leg = Leg(name="dense", kind="dense", dim=32, space_id=DENSE.space_id)
    collection = Collection(name="graph", legs=(leg,), fields=FIELDS)
    values = dice.normal(size=(3100, 32)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    oracle, writer, reader = MemoryBackend().open(collection), MilvusBackend(milvus.uri), MilvusBackend(milvus.uri)
    written = writer.open(collection)
    for each in (oracle, written):
        each.upsert([row(f"d{i}", value) for i, value in enumerate(values[:3000])])
    writer.close()
    client = MilvusClient(milvus.uri, timeout=30)
    _until(lambda: client.describe_index(written.physical_name, "dense")["pending_index_rows"] == 0 or _not_yet())
    assert client.describe_index(written.physical_name, "dense")["index_type"] == "HNSW"
    client.close()
    opened = reader.open(collection, create=False)
    vectors = queries(*values[3000:])
    overlap = [
        len(set(found(got)) & set(found(wanted)))
        for got, wanted in zip(opened.search("dense", vectors, 10), oracle.search("dense", vectors, 10), strict=True)
    ]
    assert sum(overlap) / (10 * len(overlap)) >= 0.98
    reader.close()


def test_another_tower_is_refused_by_the_collection_on_the_server(milvus: MilvusServer, backend: MilvusBackend) -> None:
    backend.open(named("contract"))
    with pytest.raises(SpaceMismatch, match="another"):
        MilvusBackend(milvus.uri).open(named("contract", space_id="another"))


def test_a_collection_of_somebody_else_is_refused_and_left_alone(milvus: MilvusServer, backend: MilvusBackend) -> None:
    client = MilvusClient(milvus.uri, timeout=30)
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("theirs", schema=schema)
    with pytest.raises(Stop, match="not made by Bartizan"):
        backend.open(named("theirs"))
    assert [name for name in client.list_collections() if "theirs" in name] == ["theirs"]
    client.close()


def test_a_collection_that_cannot_be_made_leaves_nothing_behind(milvus: MilvusServer, backend: MilvusBackend) -> None:
    too_wide = Leg(name="dense", kind="dense", dim=100_000, space_id="s")
    with pytest.raises(Stop):
        backend.open(Collection(name="half_made", legs=(too_wide,)))
    client = MilvusClient(milvus.uri, timeout=30)
    assert [name for name in client.list_collections() if "half_made" in name] == []
    client.close()


def test_a_deadline_is_kept(backend: MilvusBackend) -> None:
    store = backend.open(named("deadline"))
    begun = time.monotonic()
    with pytest.raises(Retry, match=r"127\.0\.0\.1"):
        store.search("dense", queries([1, 0, 0, 0]), 1, timeout=0.001)
    assert time.monotonic() - begun < 5


def test_of_several_back_ends_that_create_at_once_one_does(milvus: MilvusServer) -> None:
    """Each makes its own and gives it the name; the server takes one, the others drop what they made."""
    backends = [MilvusBackend(milvus.uri, consistency="Strong") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda backend: backend.open(named("raced")), backends))
    (physical,) = {store.physical_name for store in stores}
    for i, store in enumerate(stores):
        store.upsert([row(f"d{i}", [1, 0, 0, 0])])
        assert store.count() == i + 1
        store.close()  # one writes at a time
    client = MilvusClient(milvus.uri, timeout=30)
    assert sorted(name for name in client.list_collections() if "raced" in name) == [physical, f"{physical}__heads"]
    client.close()
    for backend in backends:
        backend.close()


def test_a_name_whose_collection_somebody_took_away_can_be_used_again(milvus: MilvusServer) -> None:
    """This server lets a collection be dropped under its alias, which then stands for nothing."""
    backend = MilvusBackend(milvus.uri, consistency="Strong")
    client = MilvusClient(milvus.uri, timeout=30)
    client.drop_collection(backend.open(named("dangling")).physical_name)
    store = backend.open(named("dangling"))
    store.upsert([row("a", [1, 0, 0, 0])])
    assert backend.aliases()["dangling"] == store.physical_name
    assert backend.open(named("dangling")).count() == 1
    client.close()
    backend.close()


def test_one_poisonous_document_of_256_is_rejected_and_255_are_written(
    backend: MilvusBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MAX_STRING_BYTES", 699)
        store = backend.open(named("narrowed"))
    rows = [row(f"d{i:03}", [1, 0, 0, 0], title="x" * 700 * (i == 77)) for i in range(256)]
    with pytest.raises(Reject, match=r"'d077'.*max length") as raised:
        store.upsert(rows)
    assert raised.value.ids == ("d077",)
    assert set(store.heads([each.id for each in rows])) == {each.id for each in rows} - {"d077"}
    assert store.count() == 255
    with pytest.raises(Stop, match="refuses every document"):
        store.upsert(rows[77:78])


def test_answers_longer_than_one_message_arrive_whole(backend: MilvusBackend) -> None:
    """700 documents of 130 kB are 91 MB; the server sends 64 MiB at a time."""
    collection = named("large").model_copy(
        update={"fields": tuple(FieldSpec(name=name, type="string", default="") for name in ("title", "text"))}
    )
    store = backend.open(collection)
    long = "x" * 65_000
    for start in range(0, 700, 100):
        ids = [f"d{i:03}" for i in range(start, start + 100)]
        store.upsert([row(id, [1, 0, 0, 0], title=id + long, text=long) for id in ids])
    answers = store.search("dense", queries([1, 0, 0, 0], [2, 0, 0, 0]), 700)
    for hits in answers:
        assert [(hit.id, hit.fields["title"]) for hit in hits] == [(f"d{i:03}", f"d{i:03}{long}") for i in range(700)]
    assert [document.rows[0].fields["text"] for document in store.scan()] == [long] * 700
    assert len(store.get([f"d{i:03}" for i in range(700)], vectors=True)) == 700


def test_an_index_is_built_anew_as_configured_and_searches_of_others_are_told_to_come_again(
    milvus: MilvusServer, backend: MilvusBackend
) -> None:
    other = MilvusBackend(milvus.uri, consistency="Strong", index="flat")
    backend.open(named("reindexed")).upsert([row("a", [1, 0, 0, 0])])
    store = other.open(named("reindexed"))
    assert "has a HNSW index" in store.remarks[0]
    reader = backend.open(named("reindexed"))
    with ThreadPoolExecutor(1) as pool:
        rebuilding = pool.submit(store.reindex)
        while not rebuilding.done():
            with suppress(Retry):
                reader.search("dense", queries([1, 0, 0, 0]), 1)
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
            assert found(hits) == [("a", 0)]
        rebuilding.result()
    assert store.remarks == []
    client = MilvusClient(milvus.uri, timeout=30)
    assert client.describe_index(store.physical_name, "dense")["index_type"] == "FLAT"
    client.close()
    other.close()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, milvus_binaries: Path) -> Iterator[MilvusServer]:
    server = milvus_server(tmp_path_factory.mktemp("mortal"), milvus_binaries)
    yield server
    server.stop()


@pytest.fixture
def mortal(own: MilvusServer) -> MilvusServer:
    """A server that tests may pause, kill and start again."""
    if not own.is_running:
        own.start()
    return own


def test_kill_9_loses_nothing_acknowledged_and_the_same_object_goes_on(mortal: MilvusServer) -> None:
    backend = MilvusBackend(mortal.uri, consistency="Strong", timeout=10)
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{i}", [i, 0, 0, 0], chunk=chunk) for i in range(300) for chunk in range(2)])
    store.upsert([row("d7", [7, 0, 0, 0], version=2)])
    store.delete([Head(id="d299", version=2)])
    mortal.kill()
    with pytest.raises(Retry, match=re.escape(mortal.uri)) as raised:
        store.search("dense", queries([1, 0, 0, 0]), 1, timeout=2)
    assert raised.value.exit_code == 4

    mortal.start()
    (hits,) = _until(lambda: store.search("dense", queries([1, 0, 0, 0]), 1000, timeout=5))
    kept = [(f"d{i}", chunk) for i in range(298, -1, -1) for chunk in range(1 if i == 7 else 2)]
    assert found(hits) == kept
    heads = _until(lambda: store.heads([f"d{i}" for i in range(300)]))
    assert heads["d299"] == Head(id="d299", version=2, deleted=True)
    assert heads["d7"].version == 2
    assert len(heads) == 300
    store.upsert([row("after", [1000, 0, 0, 0])])
    assert store.search("dense", queries([1, 0, 0, 0]), 1)[0][0].id == "after"
    backend.close()


def test_a_slow_server_gets_its_whole_deadline(mortal: MilvusServer) -> None:
    backend = MilvusBackend(mortal.uri, consistency="Strong", timeout=30)
    store = _until(lambda: backend.open(COLLECTION))
    store.upsert([row("slow", [2000, 0, 0, 0])])
    mortal.pause()
    begun = time.monotonic()
    with pytest.raises(Retry, match="Deadline"):
        store.search("dense", queries([1, 0, 0, 0]), 1, timeout=2)
    assert 1.9 < time.monotonic() - begun < 12
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(store.search, "dense", queries([1, 0, 0, 0]), 1)
        time.sleep(3)
        assert not waiting.done()
        mortal.resume()
        assert waiting.result()[0][0].id == "slow"
    backend.close()


def test_a_server_that_is_killed_is_told_at_once_by_every_call(mortal: MilvusServer) -> None:
    """By the call that is under way, by every later one, and by who connects for the first time."""
    backend, late = (MilvusBackend(mortal.uri, consistency="Strong", timeout=30) for _ in range(2))
    store = _until(lambda: backend.open(COLLECTION))
    calls: dict[str, Callable[[], object]] = {
        "search": lambda: store.search("dense", queries([1, 0, 0, 0]), 1),
        "heads": lambda: store.heads(["a"]),
        "upsert": lambda: store.upsert([row("a", [1, 0, 0, 0])]),
        "touch": lambda: store.touch([Head(id="a", version=1)]),
        "delete": lambda: store.delete([Head(id="a", version=1)]),
        "open": lambda: backend.open(COLLECTION),
        "get": lambda: store.get(["a"]),
        "count": lambda: store.count(),
        "collections": backend.collections,
        "connect": lambda: late.open(COLLECTION),
    }
    for name in ("search", "upsert"):
        calls[name]()
    with ThreadPoolExecutor() as pool:
        under_way = [pool.submit(_until_retry, calls[name]) for name in ("search", "upsert")]
        time.sleep(0.5)
        killed = time.monotonic()
        mortal.kill()
        assert all(future.result() - killed < AT_ONCE for future in under_way)
    for name, call in calls.items():
        begun = time.monotonic()
        with pytest.raises(Retry, match=rf"{re.escape(mortal.uri)} is unreachable: .*Connection refused"):
            call()
        assert time.monotonic() - begun < AT_ONCE, name
    backend.close()


def _until_retry(call: Callable[[], object]) -> float:
    """Again and again until it says Retry; when that was."""
    while True:
        try:
            call()
        except Retry:
            return time.monotonic()


def _until(ask: Callable[[], T], *, seconds: float = 120) -> T:
    """The first answer that is not a Retry: after a restart, collections come back one by one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except Retry:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _not_yet() -> bool:
    raise Retry("the index is still being built")
