"""A collection that is replaced under four open readers and one writer: all five are refused at their next call."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.rows import named, queries, row
from tests.servers.milvus import MilvusServer

READERS = 4


class Loop(Thread):
    """Makes one call again and again, until it is refused; says what a call gave that began after the replacement."""

    def __init__(self, call: Callable[[], object], replaced: Event) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._replaced = replaced
        self.error: Stop | None = None
        self.late = 0
        self.calls = 0
        self._until = time.monotonic() + 60

    def run(self) -> None:
        while self.late < 5 and time.monotonic() < self._until:
            began_after = self._replaced.is_set()
            try:
                self._call()
            except Retry:
                continue  # a server may say so of what is just being taken away
            except Stop as error:
                self.error = error
                return
            self.calls += 1
            self.late += began_after


def replaced_under_five(opened: Callable[[], Backend], name: str) -> None:
    ours, theirs = named(name), named(name, space_id="another")
    backends = [opened() for _ in range(READERS + 2)]
    writer = backends[0].open(ours)
    writer.upsert([row("a", [1, 0, 0, 0])])
    done = Event()
    versions = iter(range(2, 10**6))
    loops = [Loop(lambda: writer.upsert([row("a", [1, 0, 0, 0], version=next(versions))]), done)]
    for backend in backends[1 : READERS + 1]:
        store = backend.open(ours, create=False)
        loops.append(Loop(lambda store=store: store.search("dense", queries([1, 0, 0, 0]), 3), done))  # type: ignore[misc]
    for loop in loops:
        loop.start()
    while any(loop.calls < 2 and loop.is_alive() for loop in loops):
        time.sleep(0.01)
    backends[-1].drop(name)
    new = backends[-1].open(theirs)
    done.set()
    for loop in loops:
        loop.join(60)
    assert [loop.late for loop in loops] == [0] * len(loops), "not one call that began after it was answered"
    assert all(loop.error is not None for loop in loops)
    for call in (
        lambda: writer.upsert([row("b", [1, 0, 0, 0])]),
        lambda: writer.search("dense", queries([1, 0, 0, 0]), 1),
    ):
        with pytest.raises(SpaceMismatch, match="another"):
            call()
    assert new.count() == 0
    assert new.heads(["a", "b"]) == {}
    for backend in backends:
        backend.close()


def test_in_the_embedded_store(tmp_path: Path) -> None:
    replaced_under_five(lambda: EmbeddedBackend(tmp_path / "index.bartizan"), "docs")


def test_in_a_milvus_lite_folder(tmp_path: Path) -> None:
    replaced_under_five(lambda: MilvusBackend(str(tmp_path / "index.db")), "docs")


@pytest.mark.server
def test_on_a_milvus_server(milvus: MilvusServer) -> None:
    replaced_under_five(lambda: MilvusBackend(milvus.uri), named("under_five").name)
