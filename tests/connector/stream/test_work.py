"""The stream from a source into a collection, judged by a plain dictionary and by the order of its effects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Retry, SpaceMismatch, WrongUse
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.memory import MemoryBackend, MemoryStore
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.report import MAX_NAMED_KEYS, OTHER_KEYS, Report
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.faults import (
    COLLECTION,
    ENCODER,
    Backend,
    Encoder,
    FaultyStore,
    Words,
    heads,
    ingest,
    run_dense,
    stored,
)
from tests.connector.stream.streams import (
    IDS,
    Change,
    ListSource,
    changes,
    collection_for,
    message,
    state_after,
    to_messages,
)


def test_documents_are_written_with_vectors_fields_and_heads() -> None:
    backend = MemoryBackend()
    report = ingest([message("a", "one", 3, title="T", year=2020)], backend)
    vectors = ENCODER.encode(["T one"], "query")
    (hit,) = backend.open(COLLECTION).search("dense", vectors, 10)[0]
    assert (hit.id, hit.fields) == ("a", {"title": "T", "text": "one", "year": 2020})
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    assert heads(backend, ["a"])["a"].version == 3
    assert (report.read, report.written) == (1, 1)


def test_the_effects_come_in_their_order() -> None:
    backend, words = Backend(), Words()
    run_dense(ListSource([message("b", "old", 1), message("c", "old", 1), message("d", "same", 1)]), ENCODER, backend,
        COLLECTION, words=words)  # fmt: skip
    backend.effects = words.effects = effects = []

    class Witness(ListSource):
        def commit(self, batch: object) -> None:
            effects.append("commit")

    change = [message("a", "new", 2), message("b", "new", 2), message("c", None, 2), message("d", "same", 2)]
    run_dense(Witness(change), ENCODER, backend, COLLECTION, words=words)
    assert effects == ["touch d b c", "upsert a b", "delete c", "words upsert a b", "words delete c", "commit"]


def test_a_second_run_writes_and_encodes_nothing() -> None:
    messages = [message("a", "one", 1), message("b", "two", 1), message("c", None, 1), message("b", "three", 2)]
    backend, words = Backend(), Words()
    run_dense(ListSource(messages, 2), ENCODER, backend, COLLECTION, words=words)
    backend.effects, words.effects = [], []
    encoder = Encoder()
    report = run_dense(ListSource(messages, 2), encoder, backend, COLLECTION, words=words)
    assert (backend.effects, words.effects, encoder.encoded) == ([], [], [])
    assert (report.read, report.unchanged, report.stale) == (4, 3, 1)


def test_a_new_version_of_the_same_content_is_not_encoded_but_fences_what_is_older() -> None:
    backend, encoder = MemoryBackend(), Encoder()
    ingest([message("a", "one", 1)], backend)
    report = run_dense(ListSource([message("a", "one", 5)]), encoder, backend, COLLECTION)
    assert (report.unchanged, report.written, encoder.encoded) == (1, 0, [])
    assert heads(backend, ["a"])["a"].version == 5
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
    run_dense(ListSource([message("a", "one", 1), message("b", "one", 1)]), encoder, backend, COLLECTION)
    assert encoder.encoded == ["one"]
    assert stored(backend) == {"a": "one", "b": "one"}


def test_a_tower_of_another_space_is_refused_before_anything_is_opened_or_read() -> None:
    class Untouched(MemoryBackend):
        def open(self, collection: Collection, *, create: bool = True) -> MemoryStore:
            raise AssertionError("must not be reached")

    source = ListSource([message("a", "one", 1)])
    other = HashEncoder(dim=8, seed=1)
    with pytest.raises(SpaceMismatch) as caught:
        run_dense(source, other, Untouched(), COLLECTION)
    assert caught.value.exit_code == 3
    assert other.spec.space_id in str(caught.value)
    assert ENCODER.spec.space_id in str(caught.value)
    assert source.committed == 0


def test_a_collection_that_was_made_for_another_space_is_refused_before_anything_is_written() -> None:
    backend, source = MemoryBackend(), ListSource([message("a", "two", 2)])
    ingest([message("a", "one", 1)], backend)
    other = HashEncoder(dim=8, seed=1)
    with pytest.raises(SpaceMismatch):
        run_dense(source, other, backend, collection_for(other.spec))
    assert (source.committed, stored(backend)) == (0, {"a": "one"})


def test_a_tower_that_encodes_queries_only_is_refused() -> None:
    encoder = HashEncoder(dim=8)
    roles = {"query": encoder.spec.roles["query"]}
    encoder.spec = encoder.spec.model_copy(update={"roles": roles, "space": ENCODER.spec.space_id})
    with pytest.raises(WrongUse, match="encodes query only"):
        run_dense(ListSource([]), encoder, MemoryBackend(), COLLECTION)


def test_a_collection_with_a_leg_that_nobody_fills_is_refused() -> None:
    sparse = Leg(name="sparse", kind="sparse", dim=100, space_id="tw-other")
    two = COLLECTION.model_copy(update={"legs": (*COLLECTION.legs, sparse)})
    with pytest.raises(WrongUse, match="no tower fills sparse of collection 'docs', which has the legs dense, sparse"):
        run(ListSource([]), {"dense": ENCODER}, MemoryBackend(), two)


def test_a_tower_for_which_there_is_no_leg_is_refused() -> None:
    with pytest.raises(WrongUse, match="a tower is given for sparse, but collection 'docs' has the legs dense"):
        run(ListSource([]), {"dense": ENCODER, "sparse": ENCODER}, MemoryBackend(), COLLECTION)


def test_the_report_names_what_was_cut_off_and_what_was_not_declared() -> None:
    messages = [
        message("a", "one two three", 1, metadata={}, url="x"),
        message("b", "one two three four", 1, url="x"),
        message("c", "one two three four", 1),
    ]
    shares: list[Report] = []
    report = run_dense(ListSource(messages, 1), ENCODER, MemoryBackend(), COLLECTION, on_batch=shares.append)
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


@pytest.mark.packaging
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
    report = run_dense(source, ENCODER, backend, COLLECTION, words=words if with_words else None)

    expected = state_after(each for each in log if isinstance(each, Change) and each.record.get("text") not in refused)
    alive = {id: f"fruit {change.content}" for id, change in expected.items() if change.content is not None}
    assert stored(backend) == alive
    kept = heads(backend, IDS)
    assert {id: (head.version, head.deleted, bool(head.hash)) for id, head in kept.items()} == {
        id: (change.version, change.content is None, change.content is not None) for id, change in expected.items()
    }
    if with_words:
        assert {id: row.fields["text"] for id, row in words.held.items()} == alive
    assert report.read == len(messages) == source.committed
    assert report.read == report.written + report.unchanged + report.stale + report.deleted + report.dead
    assert report.dead == len(source.dead)


@pytest.mark.parametrize("group", ["", "workers"])
def test_who_writes_is_claimed_before_anything_is_read_or_encoded(group: str) -> None:
    claimed: list[str] = []

    class Held(Backend):
        def open(self, collection: Collection, *, create: bool = True) -> FaultyStore:
            store = super().open(collection, create=create)

            def claim(group: str = "") -> None:
                claimed.append(group)
                raise Retry("collection 'docs' is being written by process 1")

            store.claim = claim  # type: ignore[method-assign]
            return store

    class Source(ListSource):
        def poll(self, timeout: float) -> Batch | None:
            raise AssertionError("read")

    class Shared(Source):
        group = "workers"

    source = (Shared if group else Source)([message("a", "one", 1)])
    with pytest.raises(Retry, match="process 1"):
        run_dense(source, Encoder(), Held(), COLLECTION, patience=Patience(attempts=5))
    assert claimed == [group], "told at once, and not waited for"
