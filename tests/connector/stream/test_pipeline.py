"""Several batches in flight: steps overlap, nothing is decided too early, every leg is filled by the same steps."""

import threading
import time
from collections.abc import Mapping, Sequence

import pytest

from bartizan_connector.base.errors import Reject
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.work import run
from tests.connector.stream.faults import (
    COLLECTION,
    SOON,
    Backend,
    Encoder,
    Gated,
    Watched,
    Words,
    heads,
    ingest,
    run_dense,
    stored,
)
from tests.connector.stream.streams import ListSource, collection_for, message
from tests.connector.testing.sparse_fake import WordEncoder

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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


def test_the_heads_of_the_next_batch_are_asked_for_while_the_one_ahead_is_encoded() -> None:
    backend = Backend()
    store, asked = backend.open(COLLECTION), threading.Event()
    ask = store.heads

    def heads(ids: Sequence[str]) -> Mapping[str, Head]:
        if "b" in ids:
            asked.set()
        return ask(ids)

    store.heads = heads  # type: ignore[method-assign]
    backend.open = lambda *args, **more: store  # type: ignore[method-assign]

    def when(texts: Sequence[str]) -> None:
        assert asked.wait(SOON), "nobody asks for the heads of b while a is encoded"

    source = ListSource([message("a", "one", 1), message("b", "two", 1)], 1)
    assert run_dense(source, Watched(when), backend, COLLECTION).written == 2


class Arriving(ListSource):
    """Gives what has arrived until now."""

    arrived = 1

    def __init__(self, count: int) -> None:
        super().__init__([message(str(number), f"text {number}", 1) for number in range(count)])
        self.batches: list[int] = []

    def poll(self, timeout: float) -> Batch | None:
        start = self._at
        self.given = min(self.arrived, start + self.batch_size)
        if start < self.given:
            self.batches.append(self.given - start)
        return Batch(messages=tuple(self.messages[start : self.given])) if start < self.given else None


def test_what_arrives_while_a_batch_waits_for_its_write_is_one_batch() -> None:
    backend, source, ahead = Gated(), Arriving(22), []

    def when(texts: Sequence[str]) -> None:
        if texts == ["text 0"]:
            source.arrived = 2
        if texts == ["text 1"]:  # while the first is being written, for which this one will wait
            threading.Timer(0.1, lambda: setattr(source, "arrived", 3)).start()
            threading.Timer(0.4, go_on).start()

    def go_on() -> None:
        ahead.extend(source.batches)
        source.arrived = 22
        backend.gate.set()

    report = run_dense(source, Watched(when), backend, COLLECTION)
    assert (report.written, ahead, source.batches) == (22, [1, 1], [1, 1, 20])


def test_what_arrives_while_a_batch_waits_for_the_towers_is_one_batch() -> None:
    source = Arriving(22)

    def when(texts: Sequence[str]) -> None:
        if texts == ["text 0"]:
            source.arrived = 2
            deadline = time.monotonic() + SOON
            while source.batches != [1, 1] and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            source.arrived = 3
            time.sleep(0.2)
            source.arrived = 22

    report = run_dense(source, Watched(when), Backend(), COLLECTION)
    assert (report.written, source.batches) == (22, [1, 1, 20])


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
