"""What a server keeps in memory only is sealed when a writer begins or leaves, rests, or has found the server away."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from pymilvus import MilvusClient, MilvusException

from bartizan_connector.base.errors import BartizanError, Forgotten, Retry
from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.ledger import ledger_name
from bartizan_connector.store.milvus.sealing import Sealing
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.testing.rows import named, row
from tests.servers.milvus import MilvusServer

NAMES = ["docs", "docs__heads"]


class Away(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # the library has no types
    """What a call says where nothing listens."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connection refused"


class Server:
    """Writes down what it is told to seal; `away`: it takes no order."""

    def __init__(self) -> None:
        self.sealed: list[str] = []
        self.away = False
        self.life = 1
        self.is_loaded = True
        self.asked: dict[str, Any] = {}
        """How it was told last."""

    def flush(self, name: str, **how: Any) -> None:
        if self.away:
            raise MilvusException(1, "node not found")
        self.sealed.append(name)
        self.asked = how

    def describe_replica(self, name: str, **_: Any) -> list[Any]:
        if not self.is_loaded:
            return []
        return [SimpleNamespace(shards=[SimpleNamespace(channel_name=f"of {name}", shard_leader=self.life)])]

    def told(self) -> list[str]:
        """Since it was last asked."""
        told, self.sealed = self.sealed, []
        return told


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bartizan_connector.store.milvus.sealing.time", clock)
    return clock


def _sealing(server: Server, file: Path | None = None) -> Sealing:
    return Sealing(cast(Connection, SimpleNamespace(file=file, place="here", timeout=9.0, client=server)), NAMES)


def test_a_writer_that_begins_has_rows_and_ledger_sealed_at_once_and_once_more(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.see()
    assert not server.told()
    sealing.begin()
    sealing.see()
    assert server.told() == NAMES
    clock.now += 19
    sealing.see()
    assert not server.told()
    clock.now += 2
    sealing.see()
    assert server.told() == NAMES
    clock.now += 1000
    sealing.see()
    assert not server.told()


def test_a_server_that_could_not_be_told_apart_when_the_writer_began_counts_as_another_once(
    server: Server, clock: Clock
) -> None:
    sealing = _sealing(server)
    server.is_loaded = False
    sealing.begin()
    server.is_loaded = True
    with pytest.raises(Forgotten):
        sealing.seal()
    sealing.seal()


def test_what_a_server_does_not_take_stays_due_and_fails_nobody(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.begin()
    server.away = True
    sealing.see()
    assert not server.told()
    server.away = False
    sealing.see()
    assert server.told() == NAMES


def test_an_order_holds_the_writer_up_for_two_seconds_at_most(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.begin()
    sealing.see()
    assert server.asked == {"timeout": 2.0, "retry_on_rate_limit": False, "_async": True}


def test_what_was_written_is_sealed_when_nothing_follows_or_its_writer_leaves(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.wrote()
    clock.now += 59
    sealing.wrote()
    clock.now += 59
    sealing.see()
    assert not server.told(), "it was written all the time"
    clock.now += 2
    sealing.see()
    assert server.told() == NAMES
    sealing.see(is_last=True)
    assert not server.told(), "nothing was written since"
    sealing.wrote()
    sealing.see(is_last=True)
    assert server.told() == NAMES


def _met(sealing: Sealing, cause: Exception) -> None:
    try:
        raise Retry("for now") from cause
    except Retry as error:
        sealing.met(error)


def test_only_a_server_that_is_away_or_has_unloaded_the_collection_is_a_doubt(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.met(Retry("written by another"))
    for harmless in (MilvusException(8, "rate limit exceeded"), MilvusException(1, "deadline exceeded")):
        _met(sealing, harmless)
    sealing.see()
    assert not server.told()
    for doubt in (Away(), MilvusException(101, "collection not loaded")):
        _met(sealing, doubt)
        sealing.see()
        assert server.told() == NAMES
        clock.now += 1000
        sealing.see()
        server.told()
        clock.now += 1000


def test_doubt_upon_doubt_is_not_order_upon_order(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    for _ in range(10):
        _met(sealing, Away())
        sealing.see()
        clock.now += 1
    assert server.told() == NAMES
    clock.now += 11
    sealing.see()
    assert server.told() == NAMES


def test_a_seal_is_waited_for_and_counts_as_the_order(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.begin()
    sealing.wrote()
    clock.now += 1
    sealing.seal()
    assert sorted(server.told()) == NAMES
    assert server.asked == {"timeout": 9.0, "retry_on_rate_limit": False, "_async": False}
    sealing.see()
    assert not server.told()
    clock.now += 20
    sealing.see()
    assert server.told() == NAMES, "what is due later is due all the same"
    sealing.see(is_last=True)
    assert not server.told()


def test_a_seal_by_another_server_says_that_what_was_written_may_be_forgotten(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.begin()
    sealing.seal()
    server.life = 2
    with pytest.raises(Forgotten, match="started again"):
        sealing.seal()
    sealing.seal()
    _met(sealing, Away())
    sealing.seal()  # it was the same one all the time


def test_where_a_server_does_not_say_which_it_is_having_been_away_is_enough(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(name: str, **_: Any) -> list[Any]:
        raise MilvusException(1401, "permission deny")

    monkeypatch.setattr(server, "describe_replica", denied)
    sealing = _sealing(server)
    sealing.begin()
    sealing.seal()
    _met(sealing, Away())
    with pytest.raises(Forgotten):
        sealing.seal()
    sealing.seal()


def test_what_could_not_be_sealed_is_still_to_be_judged(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.begin()
    server.away, server.life = True, 2
    with pytest.raises(Retry, match="node not found"):
        sealing.seal()
    server.away = False
    with pytest.raises(Forgotten):
        sealing.seal()


def test_a_file_is_left_alone(server: Server, clock: Clock, tmp_path: Path) -> None:
    sealing = _sealing(server, tmp_path / "index.db")
    sealing.begin()
    sealing.wrote()
    _met(sealing, Away())
    sealing.see(is_last=True)
    assert not server.told()


def _wait_for(there: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.3)


def _sealed(client: MilvusClient, name: str) -> int:
    """How many rows are in segments that are written down."""
    flushed = 4  # SegmentState.Flushed
    segments = client.list_persistent_segments(name, timeout=10)
    return sum(each.num_rows for each in segments if int(each.state) == flushed)


def _begun_long_ago(store: MilvusStore, client: MilvusClient) -> None:
    """Written into, and what is due since its writer began is over, so that nothing is sealed by that any more."""
    store.upsert([row("a", [1, 0, 0, 0])])
    _wait_for(lambda: _sealed(client, store.physical_name) == 1, 30)
    _wait_for(lambda: _sealed(client, ledger_name(store.physical_name)) >= 1, 30)
    store._writer.sealing._due.clear()
    store._writer.sealing._ordered = 0.0


@pytest.mark.server
def test_a_server_has_sealed_what_an_ended_writer_wrote(milvus: MilvusServer) -> None:
    with closing(MilvusBackend(milvus.uri)) as backend, closing(MilvusClient(milvus.uri, timeout=30)) as client:
        store = backend.open(named("ended"))
        _begun_long_ago(store, client)
        ledger = ledger_name(store.physical_name)
        store.upsert([row("b", [0, 1, 0, 0]), row("c", [0, 0, 1, 0])])
        time.sleep(3.0)
        assert _sealed(client, store.physical_name) == 1
        before = _sealed(client, ledger)
        store.close()
        _wait_for(lambda: _sealed(client, store.physical_name) == 3, 30)
        _wait_for(lambda: _sealed(client, ledger) >= before + 3, 30)  # what says that nobody writes, too
        backend.drop("ended")


@pytest.mark.server
def test_a_writer_has_what_it_wrote_before_a_kill_sealed_once_the_server_is_back(milvus: MilvusServer) -> None:
    with closing(MilvusBackend(milvus.uri, timeout=5.0)) as backend:
        store = backend.open(named("killed"))
        with closing(MilvusClient(milvus.uri, timeout=30)) as client:
            _begun_long_ago(store, client)
        store.upsert([row("b", [0, 1, 0, 0])])
        milvus.kill()
        with pytest.raises(BartizanError):
            store.upsert([row("c", [0, 0, 1, 0])])
        milvus.start()

        def is_written() -> bool:
            try:
                store.upsert([row("c", [0, 0, 1, 0])])
            except Retry:
                return False
            return True

        _wait_for(is_written, 60)
        with closing(MilvusClient(milvus.uri, timeout=30)) as client:

            def is_sealed() -> bool:
                with suppress(Retry):
                    store.touch([Head(id="c", version=1, hash="h")])  # a later call orders what is due again
                return _sealed(client, store.physical_name) >= 3

            _wait_for(is_sealed, 60)
        backend.drop("killed")


@pytest.mark.server
def test_a_seal_ends_when_the_server_has_written_it_down_and_knows_another_server(milvus: MilvusServer) -> None:
    with closing(MilvusBackend(milvus.uri, timeout=10.0)) as backend:
        store = backend.open(named("sealed"))
        with closing(MilvusClient(milvus.uri, timeout=30)) as client:
            _begun_long_ago(store, client)
            store.upsert([row("b", [0, 1, 0, 0])])
            store.seal()
            assert _sealed(client, store.physical_name) == 2
        milvus.kill()
        milvus.start()

        def tells() -> bool:
            try:
                store.seal()
            except Forgotten:
                return True
            except Retry:
                return False
            raise AssertionError("it took the other for the one that it had written to")

        _wait_for(tells, 60)
        store.seal()
        backend.drop("sealed")
