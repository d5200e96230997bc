"""A store that may forget what it acknowledged: only what is sealed is committed, and the rest is written again."""

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event

import pytest

from bartizan_connector.base.errors import Retry, Stop
from bartizan_connector.stream import unsealed
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.report import Report
from tests.connector.stream.faults import COLLECTION, SOON, Encoder, Gated, Words, run_dense, stored
from tests.connector.stream.forgetting import Forgetful, Killed, NotingSource, NotingTopic, killed
from tests.connector.stream.topics import PoliteSource

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SOONER = Patience(attempts=1000, longest_wait=0.01, sleep=time.sleep)


def topic_of(*texts: str) -> NotingTopic:
    topic = NotingTopic()
    for number, text in enumerate(texts):
        topic.append("0", json.dumps({"_id": f"{number}", "text": text}).encode(), milliseconds=1000 + number)
    return topic


def read(topic: NotingTopic, backend: Forgetful, batch_size: int = 1) -> Report:
    return run_dense(NotingSource(topic, batch_size), Encoder(), backend, COLLECTION, patience=SOONER)


def test_the_place_moves_once_for_all_that_was_written_before_a_seal() -> None:
    topic, backend = topic_of("one", "two", "three"), Forgetful()
    backend.seals = [lambda: topic.effects.append("seal")]
    report = read(topic, backend)
    assert report.written == 3
    assert topic.effects == ["note 1", "note 2", "note 3", "seal", "commit 3"]


def test_a_store_that_need_not_be_sealed_is_committed_to_with_each_write() -> None:
    topic, backend = topic_of("one", "two"), Gated()
    backend.gate.set()
    source = NotingSource(topic, 1)
    topic.noted = {"0": 9}  # which `commit` asks for
    run_dense(source, Encoder(), backend, COLLECTION)
    assert topic.effects == ["commit 1", "commit 2"]


@pytest.mark.packaging
def test_what_is_written_while_a_seal_goes_on_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 1.0)
    topic, backend, stop = topic_of("one"), Forgetful(), Event()

    def in_between() -> None:
        written = backend.writes
        topic.append("0", b'{"_id": "late", "text": "late"}', milliseconds=5000)
        deadline = time.monotonic() + SOON
        while backend.writes == written:
            assert time.monotonic() < deadline, "the write waits for the seal"
            time.sleep(0.01)

    backend.seals = [in_between, stop.set]
    seen: list[int] = []
    backend.seals[1] = lambda: (seen.append(topic.committed["0"]), stop.set())[1]
    run_dense(NotingSource(topic, 1, follows=True), Encoder(), backend, COLLECTION, stop=stop, patience=SOONER)
    assert (seen, topic.committed) == ([1], {"0": 2})


def test_a_source_that_goes_on_is_sealed_when_it_rests() -> None:
    topic, backend, stop = topic_of("one"), Forgetful(), Event()
    begun = time.monotonic()
    backend.seals = [stop.set]
    run_dense(NotingSource(topic, follows=True), Encoder(), backend, COLLECTION, stop=stop)
    assert topic.committed == {"0": 1}
    assert time.monotonic() - begun < 5


def test_a_source_that_rests_again_and_again_is_not_sealed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_RESTS_SECONDS", 0.0)
    topic, backend, stop = topic_of("one"), Forgetful(), Event()

    def goes_on() -> None:
        topic.append("0", b'{"_id": "late", "text": "late"}', milliseconds=5000)
        threading.Timer(1.0, stop.set).start()

    told: list[bool] = []
    backend.seals = [goes_on, lambda: told.append(stop.is_set())]
    run_dense(NotingSource(topic, follows=True), Encoder(), backend, COLLECTION, stop=stop)
    assert (told, topic.committed) == ([True], {"0": 2})


def test_a_source_that_never_rests_is_sealed_every_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.1)
    topic, backend = topic_of(*(f"text {number}" for number in range(60))), Forgetful()
    slow = {number: lambda: time.sleep(0.01) for number in range(100)}
    backend.at_write = dict(slow)
    read(topic, backend)
    assert backend.effects.count("seal") > 2
    assert topic.committed == {"0": 60}


@pytest.mark.parametrize("rows_only", [True, False])
def test_what_was_not_sealed_when_its_worker_was_killed_is_written_again(*, rows_only: bool) -> None:
    topic, backend = topic_of("one", "two", "three"), Forgetful()
    backend.seals = [killed]
    with pytest.raises(Stop, match="killed"):
        read(topic, backend)
    assert (topic.committed, topic.noted) == ({}, {"0": 3})
    backend.restart(rows_only=rows_only)
    assert stored(backend) == {}
    report = read(topic, backend)
    assert (report.written, report.unchanged) == (3, 0)
    assert stored(backend) == {"0": "one", "1": "two", "2": "three"}
    assert topic.committed == {"0": 3}


def test_a_deletion_that_came_undone_is_done_again() -> None:
    topic, backend = topic_of("one"), Forgetful()
    read(topic, backend)
    topic.append("0", b'{"_id": "0", "_deleted": true}', milliseconds=2000)
    backend.seals = [killed]
    with pytest.raises(Stop):
        read(topic, backend)
    backend.restart(rows_only=True)
    assert stored(backend) == {"0": "one"}
    assert read(topic, backend).deleted == 1
    assert stored(backend) == {}


def test_what_comes_after_what_is_doubtful_is_not_taken_for_what_is_stored() -> None:
    """The same content at two places: the first is doubtful, the second was never given before."""
    topic, backend = topic_of("one"), Forgetful()
    backend.seals = [killed]
    with pytest.raises(Stop):
        read(topic, backend)
    topic.append("0", b'{"_id": "0", "text": "one"}', milliseconds=2000)
    backend.restart(rows_only=True)
    assert read(topic, backend, batch_size=2).written == 1
    assert stored(backend) == {"0": "one"}


@pytest.mark.parametrize("rows_only", [True, False])
def test_a_run_that_finds_the_server_to_be_another_reads_again_by_itself(*, rows_only: bool) -> None:
    topic, backend, words = topic_of("one", "two", "three"), Forgetful(), Words()
    backend.seals = [lambda: backend.restart(rows_only=rows_only)]
    run_dense(NotingSource(topic, 1), Encoder(), backend, COLLECTION, words=words)
    assert "give again" in topic.effects
    assert stored(backend) == {"0": "one", "1": "two", "2": "three"}
    assert topic.committed == {"0": 3}
    assert sorted(words.held) == ["0", "1", "2"]


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not there() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_what_is_written_behind_a_seal_is_forgotten_with_what_it_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.0)
    topic, backend, shares = topic_of("one"), Forgetful(), list[Report]()
    topic.partitions["1"] = []
    topic.append("1", b'{"_id": "other", "text": "two"}', milliseconds=2000)

    def restarts() -> None:
        _until(lambda: len(shares) == 2)
        backend.restart(rows_only=True)

    backend.seals = [restarts]
    run_dense(NotingSource(topic, 1), Encoder(), backend, COLLECTION, on_batch=shares.append)
    assert topic.effects.count("give again") == 2
    assert (stored(backend), topic.committed) == ({"0": "one", "other": "two"}, {"0": 1, "1": 1})


def test_what_is_being_written_meanwhile_is_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.0)
    topic, backend, writes = topic_of("one"), Forgetful(), Event()
    topic.partitions["1"] = []
    topic.append("1", b'{"_id": "other", "text": "two"}', milliseconds=2000)

    def restarts() -> None:
        assert writes.wait(SOON)
        backend.restart(rows_only=True)

    def is_slow() -> None:
        writes.set()
        _until(lambda: "give again" in topic.effects)

    backend.seals, backend.at_write = [restarts], {2: is_slow}
    run_dense(NotingSource(topic, 1), Encoder(), backend, COLLECTION)
    assert (stored(backend), topic.committed) == ({"0": "one", "other": "two"}, {"0": 1, "1": 1})


def test_a_replay_of_what_is_sealed_writes_nothing() -> None:
    topic, backend = topic_of("one", "two"), Forgetful()
    read(topic, backend)
    topic.committed["0"], topic.noted = 0, {}  # as an operator rewinds a group
    before = [effect for effect in backend.effects if effect != "seal"]
    report = read(topic, backend)
    assert (report.unchanged, report.written) == (2, 0)
    assert [effect for effect in backend.effects if effect != "seal"] == before


def test_a_seal_that_finds_nobody_is_tried_again() -> None:
    topic, backend = topic_of("one"), Forgetful()

    def away() -> None:
        raise Retry("away", after=0.0)

    backend.seals = [away, away]
    read(topic, backend)
    assert (topic.committed, backend.seals) == ({"0": 1}, [])


def test_a_run_that_shall_stop_does_not_wait_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_connector.stream.patience._END_SECONDS", 0.2)
    topic, backend, stop = topic_of("one"), Forgetful(), Event()

    def away() -> None:
        stop.set()
        raise Retry("away", after=0.0)

    backend.seals = [away] * 1000
    source = NotingSource(topic, follows=True)
    report = run_dense(source, Encoder(), backend, COLLECTION, stop=stop, patience=SOONER)
    assert (report.written, topic.committed, topic.noted) == (1, {}, {"0": 1})


class _Yielding(NotingSource):
    """Is asked to give its partition up once something is written."""

    asked: bool = False
    settled: Callable[[str], None]

    def before_yielding(self, settle: Callable[[str], None]) -> None:
        self.settled = settle

    def poll(self, timeout: float) -> object:  # type: ignore[override]
        if self.asked:
            self.asked = False
            self.settled("0")
            self.committed_by_then = self._noting.committed.get("0")
            self._noting.assign("0", PoliteSource(self._noting))
        return super().poll(timeout)


def test_a_partition_that_is_given_up_in_good_order_is_sealed_and_committed_first() -> None:
    topic, backend, stop = topic_of("one"), Forgetful(), Event()
    source = _Yielding(topic, follows=True)

    def asks() -> None:
        source.asked = True
        threading.Timer(0.5, stop.set).start()

    backend.at_write = {1: asks}
    run_dense(source, Encoder(), backend, COLLECTION, stop=stop)
    assert source.committed_by_then == 1


def _world(seed: int) -> None:
    """Changes of a few ids in two partitions, workers that are killed, and servers that forget; then all is right."""
    dice = random.Random(seed)
    topic, backend = NotingTopic(partitions={"0": [], "1": []}), Forgetful()
    backend.open(COLLECTION)
    model: dict[str, str] = {}
    places: dict[str, tuple[str, int]] = {}
    for number in range(dice.randrange(5, 30)):
        partition = dice.choice("01")
        id, text = f"{partition}{dice.randrange(3)}", dice.choice(["apple", "banana", None])
        record = {"_id": id} | ({"_deleted": True} if text is None else {"text": text})
        message = topic.append(partition, json.dumps(record).encode(), milliseconds=1000 + number)
        places[id] = (message.origin, message.offset)
        model.pop(id, None)
        if text is not None:
            model[id] = text
        if dice.random() < 0.2:
            _work(topic, backend, dice)
    for _ in range(dice.randrange(3)):
        _work(topic, backend, dice)
    backend.at_write.clear()
    backend.seals.clear()
    read(topic, backend, dice.randrange(1, 4))
    assert stored(backend) == model
    assert {id: (head.origin, head.offset) for id, head in backend.state()[1].items()} == places
    backend.restart()
    assert stored(backend) == model, "what is committed is not sealed"
    assert topic.committed == {name: len(log) for name, log in topic.partitions.items() if log}


def _work(topic: NotingTopic, backend: Forgetful, dice: random.Random) -> None:
    """One worker, during which the server may be started again, and which may be killed."""
    deeds: list[Callable[[], None]] = [killed, lambda: backend.restart(dice)]
    for _ in range(dice.randrange(3)):
        backend.at_write[backend.writes + dice.randrange(1, 12)] = dice.choice(deeds)
    backend.seals = [dice.choice([*deeds, lambda: None]) for _ in range(dice.randrange(3))]
    with suppress(Killed):
        read(topic, backend, dice.randrange(1, 4))
    backend.seals.clear()
    if dice.random() < 0.5:
        backend.restart(dice)


@pytest.mark.packaging
def test_whatever_is_forgotten_and_whoever_is_killed_all_that_was_said_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.0)
    for seed in random.sample(range(10**6), 25):
        try:
            _world(seed)
        except BaseException:
            print(f"seed {seed}")
            raise
