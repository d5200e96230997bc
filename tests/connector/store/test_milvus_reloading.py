"""What a server has let go of is loaded again by whoever meets it, and by nobody while it is meant to be away."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from pymilvus import MilvusClient

from bartizan_connector.base.errors import Retry
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.ledger import ledger_name
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.testing.rows import COLLECTION, found, named, queries, row
from tests.servers.milvus import MilvusServer

T = TypeVar("T")
SEARCHED = queries([1, 0, 0, 0])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilvusStore]:
    monkeypatch.setattr("bartizan_connector.store.milvus.reloading._BORNE", 0.1)
    backend = MilvusBackend(str(tmp_path / "index.db"), consistency="Strong")
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    yield store
    backend.close()


def _release(client: MilvusClient, store: MilvusStore) -> None:
    for name in (store.physical_name, ledger_name(store.physical_name)):
        client.release_collection(name)


def _again(call: Callable[[], T], seconds: float) -> T:
    """What the call gives once it is no Retry."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Retry:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.packaging
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.heads(["a"]),
        lambda store: store.upsert([row("b", [0, 1, 0, 0])]),
        lambda store: store.search("dense", SEARCHED, 3),
        lambda store: store.get(["a"]),
        lambda store: list(store.scan()),
        lambda store: store.count(),
    ],
    ids=["heads", "upsert", "search", "get", "scan", "count"],
)
def test_whoever_meets_a_collection_that_stays_not_loaded_has_it_loaded(
    store: MilvusStore, call: Callable[[MilvusStore], object]
) -> None:
    _release(store._connection.client, store)
    with pytest.raises(Retry, match="load"):
        call(store)
    assert _again(lambda: call(store), 5.0) == call(store)


def test_the_server_is_not_asked_at_once_nor_again_and_again(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = store._connection.client, []
    _release(client, store)
    monkeypatch.setattr(client, "load_collection", lambda name, **_: asked.append(name))
    with pytest.raises(Retry):
        store.count()
    assert not asked
    for _ in range(20):
        time.sleep(0.02)
        with pytest.raises(Retry):
            store.count()
    assert asked == [store.physical_name, ledger_name(store.physical_name)]


def test_what_is_away_while_its_indexes_are_built_anew_is_left_to_who_builds(store: MilvusStore) -> None:
    _release(store._connection.client, store)
    with store._indexes.building, pytest.raises(Retry):
        _again(store.count, 0.5)
    assert _again(store.count, 5.0) == 1


@pytest.mark.server
def test_a_server_that_was_told_to_let_go_of_a_collection_is_read_and_written_again(milvus: MilvusServer) -> None:
    backend = MilvusBackend(milvus.uri, consistency="Strong")
    store = backend.open(named("released"))
    store.upsert([row("a", [1, 0, 0, 0])])
    client = MilvusClient(milvus.uri, timeout=30)
    _release(client, store)
    client.close()
    _again(lambda: store.upsert([row("b", [0.5, 0, 0, 0])]), 40.0)
    assert found(_again(lambda: store.search("dense", SEARCHED, 3), 20.0)[0]) == [("a", 0), ("b", 0)]
    assert sorted(store.get(["a", "b"])) == ["a", "b"]
    backend.close()
