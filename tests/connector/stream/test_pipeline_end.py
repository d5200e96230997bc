"""The end of a run: by its source, by the caller, by an error or an interruption; nothing is left behind."""

import time
from collections.abc import Sequence
from threading import Event

import pytest

from bartizan_connector.base.errors import Retry, Stop
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Row
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Batch
from tests.connector.stream.faults import (
    COLLECTION,
    SOON,
    Backend,
    Encoder,
    FaultyStore,
    Watched,
    Words,
    run_dense,
    stored,
)
from tests.connector.stream.streams import ListSource, message
from tests.connector.stream.topics import TopicSource, reader_of, topic_of

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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
