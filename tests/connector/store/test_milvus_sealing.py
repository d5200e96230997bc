"""What a server keeps in memory only is sealed when a writer begins or leaves, rests, or has found the server away."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pymilvus import MilvusClient, MilvusException

from bartizan_connector.base.errors import BartizanError, Retry
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.ledger import ledger_name
from bartizan_connector.store.milvus.sealing import Sealing
from bartizan_connector.testing.rows import named, row
from tests.servers.milvus import MilvusServer

NAMES = ["docs", "docs__heads"]


class Server:
    """Writes down what it is told to seal; `away`: it takes no order."""

    def __init__(self) -> None:
        self.sealed: list[str] = []
        self.away = False

    def flush(self, name: str, **_: Any) -> None:
        if self.away:
            raise MilvusException(1, "node not found")
        self.sealed.append(name)

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
    return Sealing(cast(Connection, SimpleNamespace(file=file, place="here", timeout=1.0, client=server)), NAMES)


def test_after_a_doubt_rows_and_ledger_are_sealed_at_once_and_once_more(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.see()
    assert not server.told()
    sealing.doubt()
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


def test_what_a_server_does_not_take_stays_due_and_fails_nobody(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.doubt()
    server.away = True
    sealing.see()
    assert not server.told()
    server.away = False
    sealing.see()
    assert server.told() == NAMES


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


def test_only_what_a_server_said_is_a_doubt(server: Server, clock: Clock) -> None:
    sealing = _sealing(server)
    sealing.met(Retry("written by another"))
    sealing.see()
    assert not server.told()
    try:
        raise Retry("unreachable") from MilvusException(2, "gone")
    except Retry as error:
        sealing.met(error)
    sealing.see()
    assert server.told() == NAMES


def test_a_file_is_left_alone(server: Server, clock: Clock, tmp_path: Path) -> None:
    sealing = _sealing(server, tmp_path / "index.db")
    sealing.doubt()
    sealing.wrote()
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


@pytest.mark.server
def test_a_server_has_sealed_what_an_ended_writer_wrote(milvus: MilvusServer) -> None:
    with closing(MilvusBackend(milvus.uri)) as backend, closing(MilvusClient(milvus.uri, timeout=30)) as client:
        store = backend.open(named("ended"))
        store.upsert([row("a", [1, 0, 0, 0]), row("b", [0, 1, 0, 0])])
        physical = store.physical_name
        store.close()
        _wait_for(lambda: _sealed(client, physical) >= 2, 30)
        _wait_for(lambda: _sealed(client, ledger_name(physical)) >= 2, 30)
        backend.drop("ended")


@pytest.mark.server
def test_a_writer_has_what_it_wrote_before_a_kill_sealed_once_the_server_is_back(milvus: MilvusServer) -> None:
    with closing(MilvusBackend(milvus.uri, timeout=5.0)) as backend:
        store = backend.open(named("killed"))
        store.upsert([row("a", [1, 0, 0, 0])])
        time.sleep(1.0)
        store.upsert([row("b", [0, 1, 0, 0])])  # after what was sealed at the beginning
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
            _wait_for(lambda: _sealed(client, store.physical_name) >= 3, 30)
        backend.drop("killed")
