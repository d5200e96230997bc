"""MilvusBackend on the real Milvus server that the PyPI package `milvus` carries, killed and started again."""

import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from bartizan_connector import MemoryBackend
from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.store.collection import Collection, Head, Leg
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.backend import BackendSuite
from bartizan_connector.testing.rows import COLLECTION, DENSE, FIELDS, found, queries, row
from tests.connector.store.congruence import IDS, assert_congruent, random_document, random_filter, random_queries
from tests.servers.milvus import MilvusServer, milvus_server

pytestmark = pytest.mark.server

T = TypeVar("T")

AT_ONCE = 2.0
"""Seconds in which a lost server is told, whatever the deadline."""

NO_SPARSE = pytest.mark.xfail(strict=True, raises=Stop, reason="the server is 2.3.5, sparse vectors came with 2.4")


class TestMilvusServer(BackendSuite):
    @pytest.fixture(autouse=True)
    def _on_a_server(self, milvus: MilvusServer) -> None:
        self.uri = milvus.uri

    def make(self) -> MilvusBackend:
        """Making a collection takes seconds, so one is emptied behind the back-end's back."""
        client = MilvusClient(self.uri, timeout=30)
        for name, field in ((COLLECTION.name, "pk"), (f"{COLLECTION.name}__heads", "id")):
            if client.has_collection(name):
                client.delete(name, filter=f'{field} != ""', timeout=30)
        client.close()
        return MilvusBackend(self.uri, consistency="Strong")

    @NO_SPARSE
    def test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(self) -> None:
        super().test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term()

    @NO_SPARSE
    def test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(self) -> None:
        super().test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg()


def named(name: str) -> Collection:
    """The suite's collection under a name of the test's own."""
    return COLLECTION.model_copy(update={"name": name})


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
    for each in (backend, oracle):
        each.ensure(collection)
        each.upsert(rows)
        assert len(each.search("dense", queries([1, 0, 0, 0]), 500)[0]) == len({(r.id, r.chunk) for r in rows})
    reader = MilvusBackend(
        milvus.uri, consistency="Eventually"
    )  # all is visible by now, and asking is 100 times faster
    reader.ensure(collection, create=False)
    for _ in range(300):
        filter, vectors = random_filter(dice, depth=4), random_queries(dice, "dense", 1)
        wanted = oracle.search("dense", vectors, 500, filter)
        assert reader.search("dense", vectors, 500, filter) == wanted, filter
    reader.close()


def test_its_graph_index_finds_what_exact_search_finds(milvus: MilvusServer) -> None:
    """Closing flushes, so the second back-end searches the graph and not the growing segment."""
    dice = np.random.default_rng(0)
    leg = Leg(name="dense", kind="dense", dim=32, space_id=DENSE.space_id)
    collection = Collection(name="graph", legs=(leg,), fields=FIELDS)
    values = dice.normal(size=(3100, 32)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    oracle, writer, reader = MemoryBackend(), MilvusBackend(milvus.uri), MilvusBackend(milvus.uri)
    for each in (oracle, writer):
        each.ensure(collection)
        each.upsert([row(f"d{i}", value) for i, value in enumerate(values[:3000])])
    writer.close()
    client = MilvusClient(milvus.uri, timeout=30)
    _until(lambda: client.describe_index("graph", "dense")["pending_index_rows"] == 0 or _not_yet())
    assert client.describe_index("graph", "dense")["index_type"] == "HNSW"
    client.close()
    reader.ensure(collection, create=False)
    vectors = queries(*values[3000:])
    overlap = [
        len(set(found(got)) & set(found(wanted)))
        for got, wanted in zip(reader.search("dense", vectors, 10), oracle.search("dense", vectors, 10), strict=True)
    ]
    assert sum(overlap) / (10 * len(overlap)) >= 0.98
    reader.close()


def test_another_tower_is_refused_by_the_collection_on_the_server(milvus: MilvusServer, backend: MilvusBackend) -> None:
    backend.ensure(named("contract"))
    other = named("contract").model_copy(update={"legs": (DENSE.model_copy(update={"space_id": "another"}),)})
    with pytest.raises(SpaceMismatch, match="another"):
        MilvusBackend(milvus.uri).ensure(other)


def test_a_collection_of_somebody_else_is_refused_and_left_alone(milvus: MilvusServer, backend: MilvusBackend) -> None:
    client = MilvusClient(milvus.uri, timeout=30)
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("theirs", schema=schema)
    with pytest.raises(Stop, match="not made by Bartizan"):
        backend.ensure(named("theirs"))
    assert client.has_collection("theirs")
    assert not client.has_collection("theirs__heads")
    client.close()


def test_a_collection_that_cannot_be_made_leaves_nothing_behind(milvus: MilvusServer, backend: MilvusBackend) -> None:
    too_wide = Leg(name="dense", kind="dense", dim=100_000, space_id="s")
    with pytest.raises(Stop):
        backend.ensure(Collection(name="half_made", legs=(too_wide,)))
    client = MilvusClient(milvus.uri, timeout=30)
    assert not client.has_collection("half_made")
    assert not client.has_collection("half_made__heads")
    client.close()


def test_a_deadline_is_kept(backend: MilvusBackend) -> None:
    backend.ensure(named("deadline"))
    begun = time.monotonic()
    with pytest.raises(Retry, match=r"127\.0\.0\.1"):
        backend.search("dense", queries([1, 0, 0, 0]), 1, timeout=0.001)
    assert time.monotonic() - begun < 5


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
    backend.ensure(COLLECTION)
    backend.upsert([row(f"d{i}", [i, 0, 0, 0], chunk=chunk) for i in range(300) for chunk in range(2)])
    backend.upsert([row("d7", [7, 0, 0, 0], version=2)])
    backend.delete([Head(id="d299", version=2)])
    mortal.kill()
    with pytest.raises(Retry, match=re.escape(mortal.uri)) as raised:
        backend.search("dense", queries([1, 0, 0, 0]), 1, timeout=2)
    assert raised.value.exit_code == 4

    mortal.start()
    (hits,) = _until(lambda: backend.search("dense", queries([1, 0, 0, 0]), 1000, timeout=5))
    kept = [(f"d{i}", chunk) for i in range(298, -1, -1) for chunk in range(1 if i == 7 else 2)]
    assert found(hits) == kept
    heads = _until(lambda: backend.heads([f"d{i}" for i in range(300)]))
    assert heads["d299"] == Head(id="d299", version=2, deleted=True)
    assert heads["d7"].version == 2
    assert len(heads) == 300
    backend.upsert([row("after", [1000, 0, 0, 0])])
    assert backend.search("dense", queries([1, 0, 0, 0]), 1)[0][0].id == "after"
    backend.close()


def test_a_slow_server_gets_its_whole_deadline(mortal: MilvusServer) -> None:
    backend = MilvusBackend(mortal.uri, consistency="Strong", timeout=30)
    _until(lambda: backend.ensure(COLLECTION))
    backend.upsert([row("slow", [2000, 0, 0, 0])])
    mortal.pause()
    begun = time.monotonic()
    with pytest.raises(Retry, match="Deadline"):
        backend.search("dense", queries([1, 0, 0, 0]), 1, timeout=2)
    assert 1.9 < time.monotonic() - begun < 4
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(backend.search, "dense", queries([1, 0, 0, 0]), 1)
        time.sleep(3)
        assert not waiting.done()
        mortal.resume()
        assert waiting.result()[0][0].id == "slow"
    backend.close()


def test_a_server_that_is_killed_is_told_at_once_by_every_call(mortal: MilvusServer) -> None:
    """By the call that is under way, by every later one, and by who connects for the first time."""
    backend, late = (MilvusBackend(mortal.uri, consistency="Strong", timeout=30) for _ in range(2))
    _until(lambda: backend.ensure(COLLECTION))
    calls: dict[str, Callable[[], object]] = {
        "search": lambda: backend.search("dense", queries([1, 0, 0, 0]), 1),
        "heads": lambda: backend.heads(["a"]),
        "upsert": lambda: backend.upsert([row("a", [1, 0, 0, 0])]),
        "touch": lambda: backend.touch([Head(id="a", version=1)]),
        "delete": lambda: backend.delete([Head(id="a", version=1)]),
        "ensure": lambda: backend.ensure(COLLECTION),
        "connect": lambda: late.ensure(COLLECTION),
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
