"""Several batches in flight: steps overlap, nothing is decided too early, lost partitions are dropped."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

import pytest

from bartizan_connector.base.errors import Reject, Retry, Stop
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Row
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.work import run
from tests.connector.stream.faults import (
    COLLECTION,
    Backend,
    Encoder,
    FaultyStore,
    Words,
    heads,
    ingest,
    run_dense,
    stored,
)
from tests.connector.stream.streams import ListSource, collection_for, message
from tests.connector.stream.topics import PoliteSource, Topic, TopicSource
from tests.connector.testing.sparse_fake import WordEncoder

SOON = 10.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


class Gated(Backend):
    """Its stores hold every write until `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.began = Event()
        self.refuse_next = False

    def open(self, collection: Collection, *, create: bool = True) -> FaultyStore:
        opened = super().open(collection, create=create)
        backend = self

        class Held(FaultyStore):
            def upsert(self, rows: Sequence[Row]) -> None:
                backend.began.set()
                assert backend.gate.wait(SOON)
                if backend.refuse_next:
                    backend.refuse_next = False
                    raise Reject([row.id for row in rows], "refused this once")
                super().upsert(rows)

        return Held(self, collection.name, opened.physical_name)


class Watched(Encoder):
    """Calls `when` before each call, with the texts."""

    def __init__(self, when: Callable[[Sequence[str]], None]) -> None:
        super().__init__()
        self.when = when

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self.when(texts)
        return super().encode(texts, role, timeout=timeout)


def test_while_a_batch_is_written_others_are_read_and_encoded() -> None:
    backend = Gated()

    def when(texts: Sequence[str]) -> None:
        if texts != ["one"]:
            assert backend.began.wait(SOON), "the first batch is not written while others are encoded"
            assert source.committed == 0
        if texts == ["three"]:
            backend.gate.set()

    messages = [message("a", "one", 1), message("b", "two", 1), message("c", "three", 1)]
    source = ListSource(messages, 1)
    report = run_dense(source, Watched(when), backend, COLLECTION)
    assert (report.written, stored(backend)) == (3, {"a": "one", "b": "two", "c": "three"})


def test_no_more_batches_are_in_flight_than_asked() -> None:
    backend = Gated()
    source = ListSource([message(str(number), f"text {number}", 1) for number in range(20)], 1)
    most = 0

    def when(texts: Sequence[str]) -> None:
        nonlocal most
        most = max(most, (source.given or 0) - source.committed)

    threading.Timer(0.2, backend.gate.set).start()
    report = run_dense(source, Watched(when), backend, COLLECTION, in_flight=3)
    assert (report.written, most) == (20, 3)


def test_one_in_flight_is_one_batch_after_the_other() -> None:
    source = ListSource([message(str(number), f"text {number}", 1) for number in range(5)], 1)
    backend = Backend()
    assert run_dense(source, Encoder(), backend, COLLECTION, in_flight=1).written == 5


def test_what_returns_while_its_change_is_in_flight_ends_as_it_was_with_its_newest_head() -> None:
    backend, words, encoder = Gated(), Words(), Encoder()
    backend.gate.set()
    ingest([message("a", "one", 1)], backend)
    backend.gate.clear()
    threading.Timer(0.2, backend.gate.set).start()
    source = ListSource([message("a", "other", 2), message("a", "one", 3)], 1)
    report = run_dense(source, encoder, backend, COLLECTION, words=words)
    assert (stored(backend), words.held["a"].fields["text"]) == ({"a": "one"}, "one")
    assert (heads(backend, ["a"])["a"].version, report.written) == (3, 2)
    assert encoder.encoded == ["other", "one"], "the second was encoded ahead, once"


def test_when_the_change_in_flight_is_refused_what_was_planned_after_it_is_decided_anew() -> None:
    backend, encoder = Gated(), Encoder()
    backend.gate.set()
    ingest([message("a", "one", 1)], backend)
    backend.gate.clear()
    backend.refuse_next = True
    threading.Timer(0.2, backend.gate.set).start()
    source = ListSource([message("a", "bad", 2), message("a", "one", 3)], 1)
    report = run_dense(source, encoder, backend, COLLECTION)
    assert (report.dead, report.unchanged, report.written) == (1, 1, 0)
    assert (stored(backend), heads(backend, ["a"])["a"].version) == ({"a": "one"}, 3)


def test_what_was_thought_stored_and_is_not_is_encoded_right_before_it_is_written() -> None:
    backend, encoder = Gated(), Encoder()
    backend.refuse_next = True
    threading.Timer(0.2, backend.gate.set).start()
    source = ListSource([message("a", "one", 1), message("a", "one", 2)], 1)
    report = run_dense(source, encoder, backend, COLLECTION)
    assert (report.dead, report.written) == (1, 1), "planned as unchanged, as the first would have been stored"
    assert stored(backend) == {"a": "one"}


def test_a_content_that_is_in_flight_is_encoded_once() -> None:
    backend, encoder = Gated(), Encoder()
    threading.Timer(0.2, backend.gate.set).start()
    source = ListSource([message(str(number), "one", 1) for number in range(4)], 1)
    run_dense(source, encoder, backend, COLLECTION)
    assert encoder.encoded == ["one"]


# ---- every leg by the same steps

SPARSE = WordEncoder()
BOTH = collection_for(Encoder().spec, SPARSE.spec)


def test_every_leg_and_the_words_are_filled_by_the_same_steps() -> None:
    backend, words, dense = Backend(), Words(), Encoder()
    messages = [message("a", "one two", 1), message("b", "three", 1), message("b", None, 2), message("c", "four", 1)]
    report = run(ListSource(messages, 2), {"sparse": SPARSE, "dense": dense}, backend, BOTH, words=words)
    assert (report.written, report.deleted) == (3, 1)
    store = backend.open(BOTH)
    for leg, encoder in (("dense", dense), ("sparse", SPARSE)):
        (hits,) = store.search(leg, encoder.encode(["one two"], "document"), 5)
        assert hits[0].id == "a"
    assert set(store.get(["a", "b", "c"], vectors=True)["a"].rows[0].vectors) == {"dense", "sparse"}
    assert sorted(words.held) == ["a", "c"] == sorted(store.get(["a", "b", "c"]))


def test_a_text_that_one_tower_refuses_is_set_aside_and_the_leg_is_named() -> None:
    class Picky(WordEncoder):
        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            if "thirteen" in texts:
                raise Reject((), "no word of it is known")
            return super().encode(texts, role, timeout=timeout)

    backend = Backend()
    source = ListSource([message("a", "one", 1), message("b", "thirteen", 1), message("c", "bad", 1)])
    report = run(source, {"dense": Encoder(poison="bad"), "sparse": Picky()}, backend, BOTH)
    assert source.dead == [
        ("list:b@1", "leg sparse: no word of it is known"),
        ("list:c@1", "leg dense: this text cannot be encoded"),
    ]
    assert (report.written, report.dead, set(stored(backend, BOTH))) == (1, 2, {"a"})


def test_a_document_counts_as_cut_off_when_one_of_the_towers_cut_it() -> None:
    report = run(
        ListSource([message("a", "one two three four", 1)]), {"dense": Encoder(), "sparse": SPARSE}, Backend(), BOTH
    )
    assert report.truncated == 1


# ---- partitions that go to another reader


def topic_of(*texts: str, partition: str = "0") -> Topic:
    topic = Topic()
    for number, text in enumerate(texts):
        topic.append(partition, b'{"_id": "%d", "text": "%s"}' % (number, text.encode()), milliseconds=1000 + number)
    return topic


def reader_of(topic: Topic, **more: Any) -> TopicSource:
    source = TopicSource(topic, 1, **more)
    source.ends = True
    topic.assign_all(source)
    return source


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


# ---- a source that is followed, and the end


def test_a_followed_source_runs_until_it_is_told_to_stop_and_what_is_in_flight_is_committed() -> None:
    topic, backend, stop = topic_of("one", "two"), Backend(), Event()
    source = reader_of(topic)
    source.ends = False

    def on_batch(share: Report) -> None:
        if topic.committed["0"] == 2:
            topic.append("0", b'{"_id": "late", "text": "three"}')
        if topic.committed["0"] == 3:
            stop.set()

    report = run_dense(source, Encoder(), backend, COLLECTION, stop=stop, on_batch=on_batch)
    assert (report.written, topic.committed) == (3, {"0": 3})


def test_stop_ends_the_run_at_once_even_while_something_is_waited_for() -> None:
    waiting = Event()

    class Away(Encoder):
        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            if texts == ["two"]:
                waiting.set()
                raise Retry("away", after=SOON * 2)
            return super().encode(texts, role, timeout=timeout)

    class Late(Backend):
        def open(self, collection: Collection, *, create: bool = True) -> FaultyStore:
            assert create
            store = super().open(collection)

            class Held(FaultyStore):
                def upsert(self, rows: Sequence[Row]) -> None:
                    assert waiting.wait(SOON)
                    raise Stop("disk full")

            return Held(self, collection.name, store.physical_name)

    source = ListSource([message("a", "one", 1), message("b", "two", 1)], 1)
    started = time.monotonic()
    with pytest.raises(Stop, match="disk full"):
        run_dense(source, Away(), Late(), COLLECTION, patience=Patience(seconds=100.0))
    assert time.monotonic() - started < SOON
    assert source.committed == 0


def test_stop_ends_the_run_at_once_even_while_a_commit_is_waited_for() -> None:
    waiting = Event()

    class Busy(ListSource):
        def commit(self, batch: Batch) -> None:
            if batch.messages[0] is self.messages[0]:
                return super().commit(batch)
            waiting.set()
            raise Retry("the broker is away", after=SOON * 2)

    class Full(Words):
        def upsert(self, rows: Sequence[Row]) -> None:
            if rows[0].id == "b":
                assert encoded.wait(SOON)
                time.sleep(0.2)  # by then the third batch waits for its turn to be written
            if rows[0].id == "c":
                assert waiting.wait(SOON)
                raise Stop("disk full")

    encoded = Event()

    def when(texts: Sequence[str]) -> None:
        if texts == ["three"]:
            encoded.set()

    source = Busy([message("a", "one", 1), message("b", "two", 1), message("c", "three", 1)], 1)
    started = time.monotonic()
    with pytest.raises(Stop, match="disk full"):
        run_dense(source, Watched(when), Backend(), COLLECTION, words=Full(), patience=Patience(seconds=100.0))
    assert time.monotonic() - started < SOON
    assert source.committed == 1


def test_when_the_encoder_gives_up_what_was_encoded_before_is_still_written_and_committed() -> None:
    encoder = Encoder(away={"three": [Stop("the tower is broken")]})
    backend = Backend()
    source = ListSource([message(text, text, 1) for text in ("one", "two", "three", "four")], 1)
    with pytest.raises(Stop, match="the tower is broken"):
        run_dense(source, encoder, backend, COLLECTION)
    assert (source.committed, stored(backend)) == (2, {"one": "one", "two": "two"})


@pytest.mark.parametrize("verb", ["poll", "owns", "commit"])
def test_an_interruption_ends_everything_and_the_next_run_goes_on(verb: str) -> None:
    topic, backend = topic_of(*(f"text {number}" for number in range(8))), Backend()
    calls = 0

    def interrupt(called: str) -> None:
        nonlocal calls
        calls += called == verb
        if called == verb and calls == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_dense(reader_of(topic, before=interrupt), Encoder(), backend, COLLECTION)
    assert topic.committed.get("0", 0) < 8
    run_dense(reader_of(topic), Encoder(), backend, COLLECTION)
    assert (len(stored(backend)), topic.committed) == (8, {"0": 8})


def test_what_the_caller_does_with_a_share_may_fail() -> None:
    def on_batch(share: Report) -> None:
        raise ZeroDivisionError

    source = ListSource([message("a", "one", 1), message("b", "two", 1)], 1)
    with pytest.raises(ZeroDivisionError):
        run_dense(source, Encoder(), Backend(), COLLECTION, on_batch=on_batch)
    assert source.committed == 1


def test_dead_letters_are_handed_over_right_before_their_commit() -> None:
    topic = topic_of("one", "two")
    topic.append("0", b"{")
    told: list[str] = []
    source = TopicSource(topic, 1, before=told.append)
    source.ends = True
    topic.assign_all(source)
    report = run_dense(source, Encoder(), Backend(), COLLECTION)
    assert report.dead == 1
    at = told.index("dead_letter")
    assert told[at - 1 : at + 2] == ["owns", "dead_letter", "commit"]


def test_an_empty_batch_is_committed() -> None:
    committed: list[Batch] = []

    class Empty(ListSource):
        def poll(self, timeout: float) -> Batch | None:
            first, self.given = self.given is None, 0
            return Batch(messages=()) if first else None

        def commit(self, batch: Batch) -> None:
            committed.append(batch)

        @property
        def ended(self) -> bool:
            return bool(committed)

    report = run_dense(Empty([]), Encoder(), Backend(), COLLECTION)
    assert (report.read, len(committed)) == (0, 1)
