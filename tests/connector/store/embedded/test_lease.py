"""One writer at a time: the second is told who the first is, and one that slept through its time is stopped."""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.store.collection import Head
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.rows import COLLECTION, DENSE, queries, row
from tests.connector.store.embedded.test_kills import started
from tests.connector.store.embedded.worker import COLLECTION as WORKED
from tests.connector.store.embedded.worker import DOCUMENTS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.bartizan"


def test_a_second_writer_is_refused_with_the_name_of_the_first_and_may_read(path: Path) -> None:
    with started(path, 1, 0, 10**6) as process:
        assert process.stdout is not None
        process.stdout.readline()
        backend = EmbeddedBackend(path)
        store = backend.open(WORKED, create=False)
        with pytest.raises(Retry, match=f"process {process.pid} on .*, since 20"):
            store.delete([Head(id="d00001", version=10**9)])
        assert len(store.heads(["d00001"])) == 1
        process.kill()
        process.wait()
        store.delete([Head(id="d00001", version=10**9)])
        assert store.heads(["d00001"])["d00001"].deleted
        backend.close()


def test_the_lease_is_given_back_on_close_and_shared_by_the_stores_of_one_back_end(path: Path) -> None:
    first, second = EmbeddedBackend(path), EmbeddedBackend(path)
    one, other = first.open(COLLECTION), first.open(COLLECTION)
    late = second.open(COLLECTION)
    one.upsert([row("a", [1, 0, 0, 0])])
    other.upsert([row("b", [1, 0, 0, 0])])
    with pytest.raises(Retry, match=f"process {os.getpid()}"):
        late.upsert([row("c", [1, 0, 0, 0])])
    one.close()
    with pytest.raises(Retry, match="being written"):
        late.touch([Head(id="a", version=2)])
    other.close()
    late.upsert([row("c", [1, 0, 0, 0])])
    assert late.count() == 3
    second.close()
    first.close()


def test_a_writer_that_slept_is_stopped_and_has_written_nothing(path: Path) -> None:
    """The sleeper is a process that is really halted; the one that follows it does not wait for it."""
    with started(path, 1, 0, 10**6) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _halt(process.pid, path)
        try:
            backend = EmbeddedBackend(path, silence=0.0)
            store = backend.open(WORKED, create=False)
            reached = max(head.version for head in store.heads([f"d{i:05}" for i in range(DOCUMENTS)]).values())
            store.delete([Head(id="d00001", version=10**9)])
            count = store.count()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        rest = process.stdout.read()
        assert process.wait(60) != 0
        assert [int(each) for each in rest.split()] == [*range(2, reached + 1)], "what it had written by then"
        assert store.count() == count
        backend.close()


def _halt(pid: int, path: Path) -> None:
    """Between two of its writes: who is halted with SQLite's own lock in hand lets nobody follow."""
    for _ in range(2_000):
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.003)
    raise AssertionError("it never let go of the lock")


def test_a_sleeper_in_this_process_is_told_who_has_followed_it(path: Path) -> None:
    sleeper, follower = EmbeddedBackend(path), EmbeddedBackend(path, silence=0.0)
    asleep, awake = sleeper.open(COLLECTION), follower.open(COLLECTION)
    asleep.upsert([row("a", [1, 0, 0, 0])])
    awake.upsert([row("b", [1, 0, 0, 0])])
    with pytest.raises(Stop, match=rf"process {os.getpid()} on .* nothing was written"):
        asleep.upsert([row("c", [1, 0, 0, 0])])
    assert awake.count() == 2
    sleeper.close()
    awake.upsert([row("d", [1, 0, 0, 0])])
    follower.close()


def test_who_has_a_collection_open_notices_that_it_was_dropped_or_replaced(path: Path) -> None:
    first, second = EmbeddedBackend(path), EmbeddedBackend(path)
    store = first.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    second.drop("suite")
    for call in (
        lambda: store.upsert([row("b", [1, 0, 0, 0])]),
        lambda: store.search("dense", queries([1, 0, 0, 0]), 1),
        lambda: store.heads(["a"]),
        lambda: store.words and store.words.search("a", 1),
    ):
        with pytest.raises(Stop, match="dropped"):
            call()
    other = COLLECTION.model_copy(update={"legs": (DENSE.model_copy(update={"space_id": "another"}),)})
    new = second.open(other)
    for _ in range(2):
        with pytest.raises(SpaceMismatch, match="another"):
            store.search("dense", queries([1, 0, 0, 0]), 1)
        with pytest.raises(SpaceMismatch, match="another"):
            store.delete([Head(id="a", version=2)])
    assert new.heads(["a"]) == {}
    first.close()
    second.close()


def test_a_file_that_was_taken_away_or_exchanged_is_noticed(path: Path) -> None:
    backend = EmbeddedBackend(path)
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    os.rename(path, path.with_name("elsewhere"))
    for call in (lambda: store.count(), lambda: store.upsert([row("b", [1, 0, 0, 0])])):
        with pytest.raises(Stop, match="taken away"):
            call()
    fresh = EmbeddedBackend(path)
    fresh.open(COLLECTION).upsert([row("z", [1, 0, 0, 0])])
    with pytest.raises(Stop, match="replaced"):
        store.search("dense", queries([1, 0, 0, 0]), 1)
    fresh.close()
    backend.close()


@pytest.mark.packaging
def test_of_several_processes_that_create_at_once_one_does(path: Path) -> None:
    processes: list[subprocess.Popen[str]] = [started(path, seed, 0, 0) for seed in range(4)]
    for process in processes:
        with process:
            process.communicate(timeout=60)
            assert process.returncode == 0
    backend = EmbeddedBackend(path)
    assert len(backend.collections()) == 1
    assert list(path.parent.glob(".*")) == []
    backend.close()
