"""Partitions that go to another reader: dropped where they are lost, finished where they are given up in good order."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.collection import Row
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.patience import Patience, Waiting
from bartizan_connector.stream.pipeline import Pipeline
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.watch import NOBODY
from tests.connector.stream.faults import (
    COLLECTION,
    SOON,
    Backend,
    Encoder,
    Gated,
    Watched,
    Words,
    run_dense,
    stored,
)
from tests.connector.stream.topics import PoliteSource, TopicSource, reader_of, topic_of

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_a_batch_that_is_lost_between_encoding_and_writing_is_dropped_with_all_after_it() -> None:
    topic, backend = topic_of("one", "two", "three"), Backend()
    source = reader_of(topic)
    other = TopicSource(topic, 1)

    def when(texts: Sequence[str]) -> None:
        if texts == ["two"]:
            topic.assign_all(other)

    encoder = Watched(when)
    report = run_dense(source, encoder, backend, COLLECTION, in_flight=3)
    assert report.dropped in (2, 3), "the first may have been written before, or not"
    assert report.read == report.written + report.dropped == 3
    assert report.written == topic.committed.get("0", 0)
    assert set(stored(backend)) <= {"0"}
    other.ends = True
    run_dense(other, Encoder(), backend, COLLECTION)
    assert stored(backend) == {"0": "one", "1": "two", "2": "three"}


class Yields:
    """A source of batches of `a` and `b` that gives `a` up while it is written, and cannot commit it."""

    ended = False

    def __init__(self) -> None:
        self.polled = 0
        self.settle: Callable[[str], None] = lambda _: None
        self.a_ends, self.b_begun, self.b_ends = Event(), Event(), Event()

    def poll(self, _: float) -> Batch | None:
        self.polled += 1
        if self.polled <= 2:
            return Batch(messages=(), partition="ab"[self.polled - 1], generation=1)
        if self.polled == 4:
            threading.Timer(0.1, self.a_ends.set).start()
            self.settle("a")
            self.b_ends.set()
            return Batch(messages=(), partition="c", generation=1)
        time.sleep(0.2)
        return None

    def owns(self, _: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        if batch.partition == "a":
            assert self.b_begun.wait(20)
            raise Stop("it cannot be committed")

    def write(self, flight: Flight) -> None:
        if flight.batch.partition == "a":
            assert self.a_ends.wait(20)
        elif flight.batch.partition == "b":
            self.b_begun.set()
            assert self.b_ends.wait(20)


@pytest.mark.packaging
def test_why_a_commit_failed_is_told_though_the_next_batch_is_being_written() -> None:
    source, halt = Yields(), Event()
    nothing = {name: lambda *_: None for name in ("look", "prepare", "leave_part", "forget")}
    steps: Any = SimpleNamespace(
        collection=None, cut=None, needs_seal=False, write=source.write, renew=lambda: math.inf, **nothing
    )
    whole: Any = source
    pipeline = Pipeline(whole, steps, Waiting(Patience(), halt), halt, Event(), None, None, NOBODY, None, 4)
    source.settle = pipeline.settle
    try:
        with pytest.raises(Stop, match="it cannot be committed"):
            pipeline.run()
    finally:
        pipeline.end()


def test_nothing_is_written_of_a_batch_that_was_lost_while_it_was_encoded() -> None:
    topic, backend, words = topic_of("one"), Backend(), Words()
    source = reader_of(topic)
    encoder = Watched(lambda texts: topic.assign_all(TopicSource(topic)))
    report = run_dense(source, encoder, backend, COLLECTION, words=words)
    assert (report.read, report.dropped, backend.effects, words.effects) == (1, 1, [], [])


def test_a_batch_that_is_lost_while_it_is_written_is_not_committed_and_leaves_no_dead_letter() -> None:
    topic = topic_of("one", "bad", "two")
    backend = Backend()
    backend.refused = frozenset({"bad"})
    source = TopicSource(topic, 3)
    source.ends = True
    topic.assign_all(source)
    other = TopicSource(topic, 3)

    class Losing(Words):
        def upsert(self, rows: Sequence[Row]) -> None:
            super().upsert(rows)
            topic.assign_all(other)

    report = run_dense(source, Encoder(), backend, COLLECTION, words=Losing())
    assert (report.read, report.dropped, report.written, report.dead) == (3, 3, 0, 0)
    assert (topic.committed, topic.letters) == ({}, [])
    other.ends = True
    report = run_dense(other, Encoder(), backend, COLLECTION)
    assert (report.unchanged, report.dead, [letter.position for letter in topic.letters]) == (2, 1, ["topic[0]@1"])


def test_what_comes_back_under_a_new_assignment_is_written_from_the_committed_place() -> None:
    topic, backend = topic_of("one", "two", "three"), Backend()
    source = reader_of(topic)
    taken = Event()

    def when(texts: Sequence[str]) -> None:
        if texts == ["two"] and not taken.is_set():
            taken.set()
            topic.assign_all(source)

    report = run_dense(source, Watched(when), backend, COLLECTION)
    assert stored(backend) == {"0": "one", "1": "two", "2": "three"}
    assert report.dropped > 0
    assert topic.committed == {"0": 3}


def test_another_partition_is_not_disturbed() -> None:
    topic, backend = topic_of("one", "two"), Backend()
    topic.partitions["1"] = []
    for number in range(3):
        topic.append("1", b'{"_id": "other %d", "text": "x"}' % number)
    source = reader_of(topic)

    def when(texts: Sequence[str]) -> None:
        topic.assign("0", TopicSource(topic))

    run_dense(source, Watched(when), backend, COLLECTION)
    assert {"other 0", "other 1", "other 2"} <= set(stored(backend))
    assert topic.committed["1"] == 3


def test_a_partition_that_is_given_up_in_good_order_has_its_write_finished_and_committed_first() -> None:
    topic, backend = topic_of("one", "two", "three"), Gated()
    source = PoliteSource(topic, 1)
    topic.assign_all(source)
    stop = Event()

    def when(texts: Sequence[str]) -> None:
        if texts == ["two"]:
            assert backend.began.wait(SOON)
            source.asked = "0"
            threading.Timer(0.2, backend.gate.set).start()
            threading.Timer(0.6, stop.set).start()

    report = run_dense(source, Watched(when), backend, COLLECTION, stop=stop, in_flight=4)
    assert (report.written, report.dropped) == (1, report.read - 1)
    assert (topic.committed, stored(backend)) == ({"0": 1}, {"0": "one"})


def test_a_write_that_fails_while_a_partition_is_given_up_ends_the_run() -> None:
    topic, backend = topic_of("one", "two"), Gated()
    backend.fail = {"upsert": [Stop("disk full")]}
    source = PoliteSource(topic, 1)
    topic.assign_all(source)

    def when(texts: Sequence[str]) -> None:
        if texts == ["two"]:
            assert backend.began.wait(SOON)
            source.asked = "0"
            threading.Timer(0.2, backend.gate.set).start()

    with pytest.raises(Stop, match="disk full"):
        run_dense(source, Watched(when), backend, COLLECTION, in_flight=3)
    assert topic.committed == {}


def test_a_partition_that_its_source_can_hold_no_longer_goes_though_its_write_has_not_ended() -> None:
    topic, backend = topic_of("one", "two"), Gated()
    source, other = PoliteSource(topic, 1), TopicSource(topic, 2)
    topic.assign_all(source)
    stop, held = Event(), []

    def given_up(partition: str) -> None:
        held.append(not backend.gate.is_set())
        backend.gate.set()
        threading.Timer(0.2, stop.set).start()

    source._on_given_up = given_up

    def when(texts: Sequence[str]) -> None:
        if texts == ["two"]:
            assert backend.began.wait(SOON)
            source.asked = "0"
            threading.Timer(0.2, topic.assign_all, [other]).start()

    report = run_dense(source, Watched(when), backend, COLLECTION, stop=stop, in_flight=4)
    assert held == [True], "the store had not answered yet"
    assert (report.written, report.dropped, topic.committed) == (0, report.read, {})
    other.ends = True
    run_dense(other, Encoder(), backend, COLLECTION)
    assert (topic.committed, stored(backend)) == ({"0": 2}, {"0": "one", "1": "two"})
