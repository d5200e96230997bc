"""A stream whose worker is killed at random points ends as a plain dictionary would, on every back-end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.records import Put, decode
from tests.connector.stream.streams import CONTENTS, IDS, Change, changes, collection_for, state_after, to_messages
from tests.connector.stream.worker import ENCODER, QUERIES, Job, cursor_of, line_of, observing
from tests.servers.milvus import MilvusServer

ROOT = Path(__file__).parents[3]
KILLED, ENDED_BY_CLOCK = -signal.SIGKILL, -signal.SIGALRM
MOST_EFFECTS = 24
"""About as many as a run of three batches has; a bomb with a longer fuse does not go off."""


class Nursery:
    """The process that forks the workers."""

    def __init__(self) -> None:
        self._process = start(
            "-m", "tests.connector.stream.worker", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, job: Job) -> int:
        """The exit status of a worker that did the job; negative for the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line_of(job))
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


def start(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
    roots = os.pathsep.join(str(ROOT / root) for root in ("connector", "."))
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": roots}, **more)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """The socket of a process whose memory outlives the workers."""
    socket = tmp_path / "memory"
    process = start("-m", "tests.connector.store.memory_host", str(socket))
    deadline = time.monotonic() + 30
    while not socket.exists():
        assert process.poll() is None, "the process that keeps the memory has ended"
        assert time.monotonic() < deadline, "the process that keeps the memory did not start"
        time.sleep(0.01)
    yield socket
    process.kill()
    process.wait()


def compare(seen: dict[str, Any], log: Sequence[Change]) -> None:
    """Rows, vectors, heads and words, each against the dictionary."""
    state = state_after(log)
    alive = {id: change for id, change in state.items() if change.content is not None}
    puts = {id: put_of(change) for id, change in alive.items()}

    assert seen["heads"] == {
        id: [change.version, puts[id].hash if id in puts else "", id not in puts] for id, change in state.items()
    }
    vectors = {id: ENCODER.encode([put.encoded], "document").values for id, put in puts.items()}
    for query, found in zip(ENCODER.encode(QUERIES, "query"), seen["found"], strict=True):
        assert len(found) == len({id for id, _, _ in found}), "a document is there twice"
        assert {id: fields for id, fields, _ in found} == {id: dict(put.fields) for id, put in puts.items()}
        for id, _, score in found:
            assert score == pytest.approx(float(np.dot(vectors[id][0], query.value)), abs=1e-5), "another's vector"
    by_word = {word: sorted(id for id, change in alive.items() if change.content == word) for word in CONTENTS}
    assert {word: sorted(ids) for word, ids in seen["words"].items()} == by_word | {"fruit": sorted(alive)}


def put_of(change: Change) -> Put:
    put = decode(to_messages([change])[0], COLLECTION)
    assert isinstance(put, Put)
    return put


COLLECTION: Collection = collection_for(ENCODER.spec)


class Stream(RuleBasedStateMachine):
    """A log that grows, workers that die over it, and a dictionary that says what must come of it."""

    nursery: Nursery
    folder: Path
    numbers = count()
    ids: Sequence[str] = IDS
    store: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        number = next(self.numbers)
        self.place = self.folder / f"{number}"
        self.place.mkdir()
        self.log: list[Change] = []
        self.mine = [f"{number} {id}" for id in self.ids]
        self.job = Job(
            log=str(self.place / "log.jsonl"),
            cursor=True,
            words=str(self.place / "words"),
            **self.where(number),
        )
        self.append([])

    def where(self, number: int) -> dict[str, str]:
        """The job's store: as many examples as there are get collections of their own, or files."""
        raise NotImplementedError

    @rule(changes=st.lists(changes(), min_size=1, max_size=6))
    def append(self, changes: list[Change]) -> None:
        """New documents, updates, deletes; late ones, duplicates and contradictions among them."""
        number = self.place.name
        self.log += [replace(change, id=f"{number} {change.id}") for change in changes]
        lines = "".join(json.dumps(change.record) + "\n" for change in self.log)
        Path(self.job.log).write_text(lines, encoding="utf-8")

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A piece of the log comes again, after what is newer."""
        if self.log:
            first = data.draw(st.integers(0, len(self.log) - 1))
            self.log += self.log[first : first + data.draw(st.integers(1, 4))]
            self.append([])

    @rule(lines=st.integers(0, 5))
    def rewind(self, lines: int) -> None:
        """The source forgets commits."""
        cursor = cursor_of(Path(self.job.log))
        if cursor.exists():
            cursor.write_text(str(max(0, int(cursor.read_text()) - lines)))

    @rule()
    def lose_words(self) -> None:
        """Somebody deletes the word index; a full run brings it back."""
        shutil.rmtree(self.job.words, ignore_errors=True)
        cursor_of(Path(self.job.log)).unlink(missing_ok=True)

    @rule(
        kill_after=st.integers(1, MOST_EFFECTS),
        batch_size=st.integers(1, 4),
        in_flight=st.integers(1, 4),
        cursor=st.booleans(),
    )
    def ingest_and_die(self, kill_after: int, batch_size: int, in_flight: int, cursor: bool) -> None:
        """A worker that is killed after this effect, or lives when it has fewer."""
        job = replace(self.job, kill_after=kill_after, batch_size=batch_size, in_flight=in_flight, cursor=cursor)
        status = self.nursery.run(job)
        assert status in (0, KILLED), "the worker failed; see its traceback above"

    @rule(milliseconds=st.integers(1, 300), batch_size=st.integers(1, 4))
    def ingest_and_die_at_any_moment(self, milliseconds: int, batch_size: int) -> None:
        """A worker that is ended by the clock, in the middle of whatever it does."""
        status = self.nursery.run(replace(self.job, kill_in=milliseconds / 1000, batch_size=batch_size))
        assert status in (0, ENDED_BY_CLOCK), "the worker failed; see its traceback above"

    @rule(batch_size=st.integers(1, 4), cursor=st.booleans())
    def ingest(self, batch_size: int, cursor: bool) -> None:
        """A worker that lives; then everything must be as the dictionary says."""
        result = self.place / "result.json"
        job = observing(replace(self.job, batch_size=batch_size, cursor=cursor), self.mine, result)
        assert self.nursery.run(job) == 0, "the worker failed; see its traceback above"
        compare(json.loads(result.read_text()), self.log)

    def teardown(self) -> None:
        self.ingest(3, True)


def drive(machine: type[Stream], nursery: Nursery, folder: Path, examples: int, steps: int) -> None:
    machine.nursery, machine.folder = nursery, folder
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class OverLite(Stream):
    def where(self, number: int) -> dict[str, str]:
        return {"milvus": str(self.place / "lite.db"), "collection": "docs"}


@pytest.mark.packaging
def test_memory_survives_the_death_of_its_writers(nursery: Nursery, memory: Path, tmp_path: Path) -> None:
    class OverMemory(Stream):
        def where(self, number: int) -> dict[str, str]:
            return {"memory": str(memory), "collection": f"docs{number}"}

    drive(OverMemory, nursery, tmp_path, examples=5, steps=12)


@pytest.mark.packaging
def test_a_lite_file_survives_the_death_of_its_writers(nursery: Nursery, tmp_path: Path) -> None:
    drive(OverLite, nursery, tmp_path, examples=2, steps=6)


@pytest.mark.server
def test_a_lite_file_survives_many_deaths(nursery: Nursery, tmp_path: Path) -> None:
    drive(OverLite, nursery, tmp_path, examples=15, steps=15)


@pytest.mark.server
def test_a_server_survives_the_death_of_its_writers(nursery: Nursery, milvus: MilvusServer, tmp_path: Path) -> None:
    class OverServer(Stream):
        def where(self, number: int) -> dict[str, str]:
            return {"milvus": milvus.uri, "collection": "crashes"}

    drive(OverServer, nursery, tmp_path, examples=8, steps=12)


BEFORE = [Change(id, 1, "apple") for id in ("updated", "deleted", "same", "returned", "revived", "deleted later")]
CHANGED = [
    Change("updated", 2, "banana"),
    Change("deleted", 2, None),
    Change("same", 2, "apple"),
    Change("returned", 2, "banana"),
    Change("revived", 2, None),
    Change("deleted later", 2, "banana"),
    Change("new", 2, "cherry"),
    Change("new, deleted later", 2, "cherry"),
    Change("never there", 2, None),
]
AFTER = [
    Change("returned", 3, "apple"),
    Change("revived", 3, "apple"),
    Change("deleted later", 3, None),
    Change("new, deleted later", 3, None),
    Change("same", 1, "cherry"),
    Change("never there", 1, "cherry"),
]
"""What comes after the crash, in one batch with all that was not committed: some ids return to what they were."""


def write_log(job: Job, log: Sequence[Change]) -> None:
    Path(job.log).write_text("".join(json.dumps(change.record) + "\n" for change in log), encoding="utf-8")


def die_after_each_effect(nursery: Nursery, folder: Path, store: Callable[[Path], dict[str, str]]) -> int:
    """Change everything and die after the first effect, change others and die after the second … and recover each
    time. How many effects there are."""
    for effect in count(1):
        place = folder / str(effect)
        place.mkdir()
        before, changed, after = (
            [replace(change, id=f"{effect} {change.id}") for change in log] for log in (BEFORE, CHANGED, AFTER)
        )
        job = Job(log=str(place / "log.jsonl"), cursor=True, words=str(place / "words"), **store(place))
        write_log(job, before)
        assert nursery.run(job) == 0
        write_log(job, [*before, *changed])
        status = nursery.run(replace(job, kill_after=effect))
        log = [*before, *changed, *after]
        write_log(job, log)
        result = place / "result.json"
        assert nursery.run(observing(job, sorted({change.id for change in log}), result)) == 0
        compare(json.loads(result.read_text()), log)
        if status == 0:
            return effect - 1
        assert status == KILLED
    raise AssertionError


@pytest.mark.packaging
def test_memory_is_whole_after_a_death_at_any_effect(nursery: Nursery, memory: Path, tmp_path: Path) -> None:
    effects = die_after_each_effect(nursery, tmp_path, lambda place: {"memory": str(memory), "collection": "docs"})
    assert effects == 10, "open, announce, touch, upsert, delete, two of the words, settle, commit, close"


@pytest.mark.packaging
def test_the_embedded_store_is_whole_after_a_death_at_any_effect(nursery: Nursery, tmp_path: Path) -> None:
    effects = die_after_each_effect(
        nursery, tmp_path, lambda place: {"embedded": str(place / "i"), "collection": "docs"}
    )
    assert effects == 10, "as in memory: what is touched are the heads that advance"


def agree_though_nothing_comes_again(nursery: Nursery, folder: Path, store: Callable[[Path], dict[str, str]]) -> None:
    """Change everything, die after the first effect, after the second …; then the file holds nothing of it any more.
    The words must say what the store says, of what was deleted and of what was replaced."""
    for effect in count(1):
        place = folder / str(effect)
        place.mkdir()
        job = Job(log=str(place / "log.jsonl"), cursor=False, words=str(place / "words"), **store(place))
        before, changed = ([replace(change, id=f"{effect} {change.id}") for change in log] for log in (BEFORE, CHANGED))
        write_log(job, before)
        assert nursery.run(job) == 0
        write_log(job, changed)
        status = nursery.run(replace(job, kill_after=effect))
        write_log(job, [])
        ids, result = sorted({change.id for change in [*before, *changed]}), place / "result.json"
        assert nursery.run(observing(job, ids, result)) == 0
        seen = json.loads(result.read_text())
        found = [(id, fields["text"].split()[-1]) for id, fields, _ in seen["found"][0]]
        stored = {id: text for id, text in found if id in seen["heads"]}  # a write of something new that never ended
        expected = {word: sorted(id for id, text in stored.items() if text == word) for word in CONTENTS}
        assert {word: sorted(seen["words"][word]) for word in CONTENTS} == expected
        if status == 0:
            return
        assert status == KILLED


@pytest.mark.server
def test_words_beside_a_lite_file_agree_though_nothing_comes_again(nursery: Nursery, tmp_path: Path) -> None:
    agree_though_nothing_comes_again(
        nursery, tmp_path, lambda place: {"milvus": str(place / "lite.db"), "collection": "docs"}
    )


@pytest.mark.packaging
def test_a_lite_file_is_whole_after_a_death_at_any_effect(nursery: Nursery, tmp_path: Path) -> None:
    effects = die_after_each_effect(
        nursery, tmp_path, lambda place: {"milvus": str(place / "lite.db"), "collection": "docs"}
    )
    assert effects > 7, "rows and heads count by themselves"


@pytest.mark.server
def test_a_server_is_whole_after_a_death_at_any_effect(nursery: Nursery, milvus: MilvusServer, tmp_path: Path) -> None:
    effects = die_after_each_effect(nursery, tmp_path, lambda place: {"milvus": milvus.uri, "collection": "deaths"})
    assert effects > 7, "rows and heads count by themselves"
