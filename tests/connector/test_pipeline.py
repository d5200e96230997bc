"""The stream from a source into a collection, judged by a plain dictionary and by the order of its effects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.collection import Collection, Head, Leg, Row
from bartizan_connector.errors import Reject, Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.memory import MemoryBackend
from bartizan_connector.pipeline import MAX_NAMED_KEYS, OTHER_KEYS, Patience, Report, run
from bartizan_connector.seams import Message
from bartizan_connector.spec import Role
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_connector.vectors import Vectors
from tests.connector.streams import (
    IDS,
    Change,
    ListSource,
    changes,
    collection_for,
    message,
    state_after,
    to_messages,
)

ENCODER = HashEncoder(dim=8, max_tokens=3)
COLLECTION = collection_for(ENCODER.spec)
EVERYTHING = 1000


class Encoder(HashEncoder):
    """Counts what it encodes, and fails first as it is told."""

    def __init__(self, *failures: Exception, poison: str | None = None) -> None:
        super().__init__(dim=8, max_tokens=3)
        self.failures = list(failures)
        self.poison = poison
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        assert role == "document"
        if self.failures:
            raise self.failures.pop(0)
        if self.poison in texts:
            raise Reject((), "this text cannot be encoded")
        self.encoded += texts
        return super().encode(texts, role, timeout=timeout)


class Backend(MemoryBackend):
    """A real one in memory that writes down its effects and fails where it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []
        self.fail: dict[str, list[Exception]] = {}
        self.refused: frozenset[str] = frozenset()
        self.torn = False

    def upsert(self, rows: Sequence[Row]) -> None:
        bad = [row.id for row in rows if row.fields["text"] in self.refused]
        if bad:
            raise Reject(bad, "the store refuses it")
        self._effect("upsert", [row.id for row in rows], lambda: super(Backend, self).upsert(rows))

    def touch(self, heads: Sequence[Head]) -> None:
        self._effect("touch", [head.id for head in heads], lambda: super(Backend, self).touch(heads))

    def delete(self, heads: Sequence[Head]) -> None:
        self._effect("delete", [head.id for head in heads], lambda: super(Backend, self).delete(heads))

    def _effect(self, name: str, ids: Sequence[str], do: Callable[[], None]) -> None:
        if self.fail.get(name):
            raise self.fail[name].pop(0)
        before = self.heads(ids)
        do()
        self.effects.append(f"{name} {' '.join(ids)}")
        if self.torn and name != "touch":
            # Power cut between the rows and their heads: the rows are changed, the heads are not.
            super().touch(list(before.values()))
            raise Stop("power cut")


@dataclass
class Words:
    """The word index as the pipeline sees it."""

    held: dict[str, Row] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {id: self.held[id].hash for id in ids if id in self.held}

    def upsert(self, rows: Sequence[Row]) -> None:
        self.held |= {row.id: row for row in rows}
        self.effects.append(f"words upsert {' '.join(row.id for row in rows)}")

    def delete(self, ids: Sequence[str]) -> None:
        for id in ids:
            self.held.pop(id, None)
        self.effects.append(f"words delete {' '.join(ids)}")


def ingest(messages: Sequence[Message], backend: MemoryBackend, batch_size: int = 100) -> Report:
    return run(ListSource(messages, batch_size), Encoder(), backend, COLLECTION)


def stored(backend: MemoryBackend) -> dict[str, str]:
    """Everything a search can find: id → text."""
    hits = backend.search("dense", ENCODER.encode(["anything"], "query"), EVERYTHING)[0]
    assert len({hit.id for hit in hits}) == len(hits), "a document is there twice"
    return {hit.id: str(hit.fields["text"]) for hit in hits}


def test_documents_are_written_with_vectors_fields_and_heads() -> None:
    backend = MemoryBackend()
    report = ingest([message("a", "one", 3, title="T", year=2020)], backend)
    vectors = ENCODER.encode(["T one"], "query")
    (hit,) = backend.search("dense", vectors, 10)[0]
    assert (hit.id, hit.fields) == ("a", {"title": "T", "text": "one", "year": 2020})
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    assert backend.heads(["a"])["a"].version == 3
    assert (report.read, report.written) == (1, 1)


def test_the_effects_come_in_their_order() -> None:
    backend, words = Backend(), Words()
    run(ListSource([message("b", "old", 1), message("c", "old", 1), message("d", "same", 1)]), ENCODER, backend,
        COLLECTION, words=words)  # fmt: skip
    backend.effects = words.effects = effects = []

    class Witness(ListSource):
        def commit(self, batch: object) -> None:
            effects.append("commit")

    change = [message("a", "new", 2), message("b", "new", 2), message("c", None, 2), message("d", "same", 2)]
    run(Witness(change), ENCODER, backend, COLLECTION, words=words)
    assert effects == ["touch d b c", "upsert a b", "delete c", "words upsert a b", "words delete c", "commit"]


def test_a_second_run_writes_and_encodes_nothing() -> None:
    messages = [message("a", "one", 1), message("b", "two", 1), message("c", None, 1), message("b", "three", 2)]
    backend, words = Backend(), Words()
    run(ListSource(messages, 2), ENCODER, backend, COLLECTION, words=words)
    backend.effects, words.effects = [], []
    encoder = Encoder()
    report = run(ListSource(messages, 2), encoder, backend, COLLECTION, words=words)
    assert (backend.effects, words.effects, encoder.encoded) == ([], [], [])
    assert (report.read, report.unchanged, report.stale) == (4, 3, 1)


def test_a_new_version_of_the_same_content_is_not_encoded_but_fences_what_is_older() -> None:
    backend, encoder = MemoryBackend(), Encoder()
    ingest([message("a", "one", 1)], backend)
    report = run(ListSource([message("a", "one", 5)]), encoder, backend, COLLECTION)
    assert (report.unchanged, report.written, encoder.encoded) == (1, 0, [])
    assert backend.heads(["a"])["a"].version == 5
    report = ingest([message("a", "late", 4)], backend)
    assert (report.stale, stored(backend)) == (1, {"a": "one"})


def test_an_equal_version_with_other_content_does_not_replace_what_is_stored() -> None:
    backend = MemoryBackend()
    ingest([message("a", "one", 1)], backend)
    report = ingest([message("a", "two", 1)], backend)
    assert (report.stale, report.unchanged, stored(backend)) == (1, 0, {"a": "one"})


def test_a_deleted_document_comes_back_only_by_a_newer_put() -> None:
    backend = MemoryBackend()
    report = ingest([message("a", "one", 1), message("a", None, 5)], backend)
    assert (report.deleted, stored(backend)) == (1, {})
    ingest([message("a", "one", 1)], backend)
    ingest([message("a", "late", 4)], backend)
    ingest([message("a", "same moment", 5)], backend)
    assert stored(backend) == {}
    ingest([message("a", "one", 6)], backend)
    assert stored(backend) == {"a": "one"}


def test_a_delete_of_an_unknown_id_stops_the_puts_that_are_older() -> None:
    backend = MemoryBackend()
    ingest([message("a", None, 5)], backend)
    ingest([message("a", "late", 4)], backend)
    assert stored(backend) == {}


def test_each_distinct_content_is_encoded_once_a_batch() -> None:
    encoder, backend = Encoder(), MemoryBackend()
    run(ListSource([message("a", "one", 1), message("b", "one", 1)]), encoder, backend, COLLECTION)
    assert encoder.encoded == ["one"]
    assert stored(backend) == {"a": "one", "b": "one"}


def test_retry_waits_as_asked_and_then_everything_is_written_and_committed_once() -> None:
    waits: list[float] = []
    backend = Backend()
    backend.fail = {"upsert": [Retry("busy", after=7.0)], "touch": [Retry("busy", after=0.0)]}
    encoder = Encoder(Retry("away", after=2.5), Retry("away", after=0.1))
    source = ListSource([message("a", "one", 1)])
    report = run(source, encoder, backend, COLLECTION, patience=Patience(sleep=waits.append))
    assert waits == [2.5, 1.0, 7.0]
    assert (report.written, source.committed, stored(backend)) == (1, 1, {"a": "one"})


def test_patience_ends_with_the_last_retry_and_the_next_run_goes_on() -> None:
    backend = MemoryBackend()
    source = ListSource([message("a", "one", 1), message("b", "two", 1)], batch_size=1)
    flaky = Encoder()
    run_once = Patience(attempts=3, sleep=lambda seconds: None)

    def fail_from_now_on(_: Report) -> None:
        flaky.failures = [Retry(f"failure {number}") for number in range(3)]

    with pytest.raises(Retry, match="failure 2"):
        run(source, flaky, backend, COLLECTION, patience=run_once, on_batch=fail_from_now_on)
    assert (source.committed, stored(backend)) == (1, {"a": "one"})
    run(source, flaky, backend, COLLECTION)
    assert stored(backend) == {"a": "one", "b": "two"}


def test_patience_is_bounded_in_time_too() -> None:
    waits: list[float] = []
    always = Encoder(*[Retry("away", after=60.0) for _ in range(10)])
    with pytest.raises(Retry):
        run(ListSource([message("a", "one", 1)]), always, MemoryBackend(), COLLECTION,
            patience=Patience(seconds=59.0, sleep=waits.append))  # fmt: skip
    assert waits == []


def test_rejected_ids_are_set_aside_and_the_rest_goes_on() -> None:
    backend = Backend()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "one", 1), message("b", "bad", 1), message("c", "two", 1)])
    report = run(source, ENCODER, backend, COLLECTION)
    assert source.dead == [("list:b@1", "the store refuses it")]
    assert (report.read, report.written, report.dead, source.committed) == (3, 2, 1, 3)
    assert stored(backend) == {"a": "one", "c": "two"}


def test_when_the_newest_is_rejected_the_one_before_it_counts() -> None:
    backend, words = Backend(), Words()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "good", 1), message("a", "bad", 3), message("a", "better", 2)])
    report = run(source, ENCODER, backend, COLLECTION, words=words)
    assert [position for position, _ in source.dead] == ["list:a@3"]
    assert (report.written, report.stale, report.dead) == (1, 1, 1)
    assert stored(backend) == {"a": "better"}
    assert words.held["a"].fields["text"] == "better"


def test_a_rejected_update_leaves_what_was_stored() -> None:
    backend, words = Backend(), Words()
    run(ListSource([message("a", "good", 1)]), ENCODER, backend, COLLECTION, words=words)
    head = backend.heads(["a"])
    backend.refused = frozenset({"bad"})
    run(ListSource([message("a", "bad", 2)]), ENCODER, backend, COLLECTION, words=words)
    assert backend.heads(["a"]) == head
    assert (stored(backend), words.held["a"].fields["text"]) == ({"a": "good"}, "good")


def test_a_batch_of_which_nothing_is_left_is_committed() -> None:
    backend = Backend()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "bad", 1), Message(position="list:2", value=b"{", version=1)])
    report = run(source, ENCODER, backend, COLLECTION)
    assert (report.dead, source.committed, stored(backend)) == (2, 2, {})


def test_a_text_that_the_encoder_rejects_is_found_among_the_others() -> None:
    texts = [f"text {number}" for number in range(20)]
    encoder, backend = Encoder(poison="text 13"), MemoryBackend()
    source = ListSource([message(text[5:], text, 1) for text in texts])
    report = run(source, encoder, backend, COLLECTION)
    assert source.dead == [("list:13@1", "this text cannot be encoded")]
    assert (report.written, report.dead) == (19, 1)
    assert sorted(encoder.encoded) == sorted(set(texts) - {"text 13"}), "each of the others is encoded once"


def test_a_rejection_of_something_else_stops() -> None:
    backend = Backend()
    backend.fail = {"upsert": [Reject(("nobody",), "no")]}
    with pytest.raises(Stop, match=r"rejected that is not in the batch \(nobody\): no"):
        run(ListSource([message("a", "one", 1)]), ENCODER, backend, COLLECTION)


def test_stop_ends_the_run_without_a_commit_and_the_next_one_goes_on() -> None:
    backend = Backend()
    backend.fail = {"upsert": [Stop("disk full")]}
    source = ListSource([message("a", "one", 1)])
    with pytest.raises(Stop, match="disk full"):
        run(source, ENCODER, backend, COLLECTION)
    assert source.committed == 0
    run(source, ENCODER, backend, COLLECTION)
    assert (source.committed, stored(backend)) == (1, {"a": "one"})


@pytest.mark.parametrize("halfway", [message("a", "other", 2), message("a", None, 2)], ids=["update", "delete"])
def test_what_returns_to_its_old_content_after_a_crash_halfway_is_written_again(halfway: Message) -> None:
    backend = Backend()
    ingest([message("a", "one", 1)], backend)
    backend.torn = True
    with pytest.raises(Stop, match="power cut"):
        run(ListSource([halfway]), ENCODER, backend, COLLECTION)
    backend.torn = False
    report = run(ListSource([halfway, message("a", "one", 3)]), ENCODER, backend, COLLECTION)
    assert (report.written, stored(backend)) == (1, {"a": "one"})


def test_an_id_whose_write_never_ended_is_repaired_by_its_own_version() -> None:
    backend = Backend()
    ingest([message("a", "one", 1)], backend)
    backend.torn = True
    with pytest.raises(Stop):
        run(ListSource([message("a", None, 2)]), ENCODER, backend, COLLECTION)
    backend.torn = False
    assert stored(backend) == {}
    ingest([message("a", "one", 1)], backend)
    assert stored(backend) == {"a": "one"}


def test_a_word_index_that_is_added_later_is_filled_without_encoding() -> None:
    backend, words, encoder = MemoryBackend(), Words(), Encoder()
    messages = [message("a", "one", 1), message("b", "two", 1), message("c", "three", 1), message("c", None, 2)]
    ingest(messages, backend)
    report = run(ListSource(messages), encoder, backend, COLLECTION, words=words)
    assert (sorted(words.held), encoder.encoded, report.written) == (["a", "b"], [], 0)


def test_a_word_index_that_a_crash_left_behind_is_brought_up_by_the_replay() -> None:
    backend, words = MemoryBackend(), Words()
    old, new = message("a", "one", 1), message("a", "two", 2)
    run(ListSource([old, message("b", "b", 1)]), ENCODER, backend, COLLECTION, words=words)
    ingest([new, message("b", None, 2)], backend)  # as if the crash came before the words
    run(ListSource([new, message("b", None, 2)]), ENCODER, backend, COLLECTION, words=words)
    assert {id: row.fields["text"] for id, row in words.held.items()} == {"a": "two"}


def test_a_tower_of_another_space_is_refused_before_anything_is_opened_or_read() -> None:
    class Untouched(MemoryBackend):
        def ensure(self, collection: Collection, *, create: bool = True) -> None:
            raise AssertionError("must not be reached")

    source = ListSource([message("a", "one", 1)])
    other = HashEncoder(dim=8, seed=1)
    with pytest.raises(SpaceMismatch) as caught:
        run(source, other, Untouched(), COLLECTION)
    assert caught.value.exit_code == 3
    assert other.spec.space_id in str(caught.value)
    assert ENCODER.spec.space_id in str(caught.value)
    assert source.committed == 0


def test_a_collection_that_was_made_for_another_space_is_refused_before_anything_is_written() -> None:
    backend, source = MemoryBackend(), ListSource([message("a", "two", 2)])
    ingest([message("a", "one", 1)], backend)
    other = HashEncoder(dim=8, seed=1)
    with pytest.raises(SpaceMismatch):
        run(source, other, backend, collection_for(other.spec))
    assert (source.committed, stored(backend)) == (0, {"a": "one"})


def test_a_tower_that_encodes_queries_only_is_refused() -> None:
    encoder = HashEncoder(dim=8)
    roles = {"query": encoder.spec.roles["query"]}
    encoder.spec = encoder.spec.model_copy(update={"roles": roles, "space": ENCODER.spec.space_id})
    with pytest.raises(WrongUse, match="encodes query only"):
        run(ListSource([]), encoder, MemoryBackend(), COLLECTION)


def test_a_collection_with_a_leg_that_nobody_fills_is_refused() -> None:
    sparse = Leg(name="sparse", kind="sparse", dim=100, space_id="tw-other")
    two = COLLECTION.model_copy(update={"legs": (*COLLECTION.legs, sparse)})
    with pytest.raises(WrongUse, match="has the legs dense, sparse, but one tower fills one leg"):
        run(ListSource([]), ENCODER, MemoryBackend(), two)


def test_the_report_names_what_was_cut_off_and_what_was_not_declared() -> None:
    messages = [
        message("a", "one two three", 1, metadata={}, url="x"),
        message("b", "one two three four", 1, url="x"),
        message("c", "one two three four", 1),
    ]
    shares: list[Report] = []
    report = run(ListSource(messages, 1), ENCODER, MemoryBackend(), COLLECTION, on_batch=shares.append)
    assert (report.truncated, report.undeclared) == (2, {"metadata": 1, "url": 2})
    assert set(report.stages) == {"read", "fence", "encode", "write", "commit"}
    assert sum((share.seconds for share in shares), 0.0) == pytest.approx(report.seconds)
    assert [share.read for share in shares] == [1, 1, 1]


def test_made_up_keys_do_not_fill_the_memory() -> None:
    messages = [message(str(number), "x", 1, **{f"key {number}": 1}) for number in range(100)]
    undeclared = ingest(messages, MemoryBackend(), batch_size=7).undeclared
    assert len(undeclared) == MAX_NAMED_KEYS + 1
    assert undeclared[OTHER_KEYS] == 100 - MAX_NAMED_KEYS


BROKEN = st.sampled_from([b"{", b"[]", b'{"_id": "a"}', b"\xff", b'{"_id": "a", "text": "x", "_version": 1.5}'])


@settings(max_examples=200, deadline=None)
@given(
    log=st.lists(changes() | BROKEN, max_size=25),
    batch_size=st.integers(1, 9),
    refused=st.sets(st.sampled_from(["fruit apple", "fruit banana"]), max_size=1),
    with_words=st.booleans(),
)
def test_any_stream_ends_as_a_dictionary_would_and_every_message_is_counted_once(
    log: list[Change | bytes], batch_size: int, refused: set[str], with_words: bool
) -> None:
    messages = [
        Message(position=f"log:{number}", value=each, version=0) if isinstance(each, bytes) else to_messages([each])[0]
        for number, each in enumerate(log)
    ]
    backend, words = Backend(), Words()
    backend.refused = frozenset(refused)
    source = ListSource(messages, batch_size)
    report = run(source, ENCODER, backend, COLLECTION, words=words if with_words else None)

    expected = state_after(each for each in log if isinstance(each, Change) and each.record.get("text") not in refused)
    alive = {id: f"fruit {change.content}" for id, change in expected.items() if change.content is not None}
    assert stored(backend) == alive
    heads = backend.heads(IDS)
    assert {id: (head.version, head.deleted, bool(head.hash)) for id, head in heads.items()} == {
        id: (change.version, change.content is None, change.content is not None) for id, change in expected.items()
    }
    if with_words:
        assert {id: row.fields["text"] for id, row in words.held.items()} == alive
    assert report.read == len(messages) == source.committed
    assert report.read == report.written + report.unchanged + report.stale + report.deleted + report.dead
    assert report.dead == len(source.dead)
