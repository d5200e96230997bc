"""A writer whose source is silent is heard of all the same, and learns that it was succeeded before it writes again."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.lease import Record
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.stream.renewing import Renewing
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.streams import ListSource, collection_for
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
ENCODER = HashEncoder(dim=8)
SOON = 60.0
Opened = Callable[[float], Backend]


class Silent(ListSource):
    """A source of a group that gives nothing and does not end."""

    group = "workers"
    ended = False

    def poll(self, timeout: float) -> Batch | None:
        time.sleep(min(timeout, 0.05))
        return None


class Idle(Thread):
    """A worker that has nothing to do."""

    def __init__(self, backend: Backend, name: str) -> None:
        super().__init__(daemon=True)
        self.stop, self.failure = Event(), ""
        self._backend, self._collection = backend, collection_for(ENCODER.spec, name=name)

    def run(self) -> None:
        try:
            run(Silent([]), {"dense": ENCODER}, self._backend, self._collection, stop=self.stop)
        except Stop as error:
            self.failure = str(error)
        finally:
            self._backend.close()

    def end(self) -> None:
        self.stop.set()
        self.join(SOON)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_connector.stream.renewing._FIRST_SECONDS", 0.1)
    monkeypatch.setattr("bartizan_connector.stream.renewing._LEAST_SECONDS", 0.1)


SERVER = pytest.param("server", marks=pytest.mark.server)


@pytest.fixture(params=["embedded", "lite", SERVER])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A back-end of one place, given the silence after which its writers may be succeeded."""
    if request.param == "embedded":
        yield lambda silence: EmbeddedBackend(tmp_path / "index.bartizan", silence=silence)
    elif request.param == "lite":
        yield lambda silence: MilvusBackend(str(tmp_path / "index.db"), silence=silence)
    else:
        server: MilvusServer = request.getfixturevalue("milvus")
        yield lambda silence: MilvusBackend(server.uri, consistency="Strong", silence=silence)


def _seen(store: Store) -> list[float]:
    """When each of those who write was last heard of."""
    if isinstance(store, EmbeddedStore):
        with store._place.reading() as connection:
            lines = connection.execute(
                "SELECT holder FROM collections WHERE physical = ? AND holder LIKE '%token%'", (store.physical_name,)
            ).fetchall()
        return [json.loads(line)["seen"] for (line,) in lines]
    assert isinstance(store, MilvusStore)
    ledger = store._prepared.ledger
    record = store._writer.lease.read()
    holders = [record.holder if record else None, *(Record.of(entry).holder for entry in ledger.members().values())]
    return [holder.seen for holder in holders if holder is not None]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_whose_source_is_silent_is_heard_of_again_and_again(opened: Opened) -> None:
    backend = opened(1.0)
    store = backend.open(collection_for(ENCODER.spec, name="idle"))
    worker = Idle(opened(1.0), "idle")
    worker.start()
    _until(lambda: bool(_seen(store)))
    for _ in range(2):
        before = max(_seen(store))
        _until(lambda: min(_seen(store)) > before)  # noqa: B023
    worker.end()
    assert (worker.failure, worker.is_alive()) == ("", False)
    backend.close()


@pytest.mark.parametrize(
    "opened", ["embedded", SERVER], indirect=True
)  # one process has a Lite folder, nobody wakes up
def test_an_idle_worker_that_was_succeeded_ends_though_nothing_comes(opened: Opened) -> None:
    worker, backend = Idle(opened(1.0), "succeeded"), opened(0.0)
    store = backend.open(collection_for(ENCODER.spec, name="succeeded"))
    worker.start()
    _until(lambda: bool(_seen(store)))
    store.claim()
    worker.join(SOON)
    assert "written by" in worker.failure
    worker.end()
    backend.close()


class _Full(ThreadPoolExecutor):
    def submit(self, *_: object, **__: object) -> Future[Any]:  # type: ignore[override]
        raise RuntimeError("can't start new thread")


def test_that_nobody_can_hear_of_the_writer_any_more_ends_the_run() -> None:
    renewing = Renewing(lambda: 1.0, _Full(1))
    renewing.begin()
    wait_for(lambda: renewing._failure is not None, SOON)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        renewing.require()
    renewing.end()
