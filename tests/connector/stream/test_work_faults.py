"""What the stream does when a part is away, refuses, stops or dies halfway: nothing is lost, nothing is done twice."""

import pytest

from bartizan_connector.base.errors import Reject, Retry, Stop
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.source import Message
from tests.connector.stream.faults import COLLECTION, ENCODER, Backend, Encoder, Words, heads, ingest, run_dense, stored
from tests.connector.stream.streams import ListSource, message


def test_retry_waits_as_asked_and_then_everything_is_written_and_committed_once() -> None:
    waits: list[float] = []
    backend = Backend()
    backend.fail = {"upsert": [Retry("busy", after=7.0)], "touch": [Retry("busy", after=0.0)]}
    encoder = Encoder(Retry("away", after=2.5), Retry("away", after=0.1))
    source = ListSource([message("a", "one", 1)])
    report = run_dense(source, encoder, backend, COLLECTION, patience=Patience(sleep=waits.append))
    assert waits == [2.5, 1.0, 7.0]
    assert (report.written, source.committed, stored(backend)) == (1, 1, {"a": "one"})


def test_patience_ends_with_the_last_retry_and_the_next_run_goes_on() -> None:
    backend = MemoryBackend()
    source = ListSource([message("a", "one", 1), message("b", "two", 1)], batch_size=1)
    flaky = Encoder(away={"two": [Retry(f"failure {number}") for number in range(3)]})
    run_once = Patience(attempts=3, sleep=lambda seconds: None)
    with pytest.raises(Retry, match="failure 2"):
        run_dense(source, flaky, backend, COLLECTION, patience=run_once)
    assert (source.committed, stored(backend)) == (1, {"a": "one"})
    source.close()
    run_dense(source, flaky, backend, COLLECTION)
    assert stored(backend) == {"a": "one", "b": "two"}


def test_patience_is_bounded_in_time_too() -> None:
    waits: list[float] = []
    always = Encoder(*[Retry("away", after=60.0) for _ in range(10)])
    with pytest.raises(Retry):
        run_dense(ListSource([message("a", "one", 1)]), always, MemoryBackend(), COLLECTION,
            patience=Patience(seconds=59.0, sleep=waits.append))  # fmt: skip
    assert waits == []


def test_rejected_ids_are_set_aside_and_the_rest_goes_on() -> None:
    backend = Backend()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "one", 1), message("b", "bad", 1), message("c", "two", 1)])
    report = run_dense(source, ENCODER, backend, COLLECTION)
    assert source.dead == [("list:b@1", "the store refuses it")]
    assert (report.read, report.written, report.dead, source.committed) == (3, 2, 1, 3)
    assert stored(backend) == {"a": "one", "c": "two"}


def test_when_the_newest_is_rejected_the_one_before_it_counts() -> None:
    backend, words = Backend(), Words()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "good", 1), message("a", "bad", 3), message("a", "better", 2)])
    report = run_dense(source, ENCODER, backend, COLLECTION, words=words)
    assert [position for position, _ in source.dead] == ["list:a@3"]
    assert (report.written, report.stale, report.dead) == (1, 1, 1)
    assert stored(backend) == {"a": "better"}
    assert words.held["a"].fields["text"] == "better"


def test_a_rejected_update_leaves_what_was_stored() -> None:
    backend, words = Backend(), Words()
    run_dense(ListSource([message("a", "good", 1)]), ENCODER, backend, COLLECTION, words=words)
    before = heads(backend, ["a"])
    backend.refused = frozenset({"bad"})
    run_dense(ListSource([message("a", "bad", 2)]), ENCODER, backend, COLLECTION, words=words)
    assert heads(backend, ["a"]) == before
    assert (stored(backend), words.held["a"].fields["text"]) == ({"a": "good"}, "good")


def test_a_batch_of_which_nothing_is_left_is_committed() -> None:
    backend = Backend()
    backend.refused = frozenset({"bad"})
    source = ListSource([message("a", "bad", 1), Message(position="list:2", value=b"{", version=1)])
    report = run_dense(source, ENCODER, backend, COLLECTION)
    assert (report.dead, source.committed, stored(backend)) == (2, 2, {})


def test_a_text_that_the_encoder_rejects_is_found_among_the_others() -> None:
    texts = [f"text {number}" for number in range(20)]
    encoder, backend = Encoder(poison="text 13"), MemoryBackend()
    source = ListSource([message(text[5:], text, 1) for text in texts])
    report = run_dense(source, encoder, backend, COLLECTION)
    assert source.dead == [("list:13@1", "this text cannot be encoded")]
    assert (report.written, report.dead) == (19, 1)
    assert sorted(encoder.encoded) == sorted(set(texts) - {"text 13"}), "each of the others is encoded once"


def test_a_rejection_of_something_else_stops() -> None:
    backend = Backend()
    backend.fail = {"upsert": [Reject(("nobody",), "no")]}
    with pytest.raises(Stop, match=r"rejected that is not in the batch \(nobody\): no"):
        run_dense(ListSource([message("a", "one", 1)]), ENCODER, backend, COLLECTION)


def test_stop_ends_the_run_without_a_commit_and_the_next_one_goes_on() -> None:
    backend = Backend()
    backend.fail = {"upsert": [Stop("disk full")]}
    source = ListSource([message("a", "one", 1)])
    with pytest.raises(Stop, match="disk full"):
        run_dense(source, ENCODER, backend, COLLECTION)
    assert source.committed == 0
    source.close()
    run_dense(source, ENCODER, backend, COLLECTION)
    assert (source.committed, stored(backend)) == (1, {"a": "one"})


@pytest.mark.parametrize("halfway", [message("a", "other", 2), message("a", None, 2)], ids=["update", "delete"])
def test_what_returns_to_its_old_content_after_a_crash_halfway_is_written_again(halfway: Message) -> None:
    backend = Backend()
    ingest([message("a", "one", 1)], backend)
    backend.torn = True
    with pytest.raises(Stop, match="power cut"):
        run_dense(ListSource([halfway]), ENCODER, backend, COLLECTION)
    backend.torn = False
    report = run_dense(ListSource([halfway, message("a", "one", 3)]), ENCODER, backend, COLLECTION)
    assert (report.written, stored(backend)) == (1, {"a": "one"})


def test_an_id_whose_write_never_ended_is_repaired_by_its_own_version() -> None:
    backend = Backend()
    ingest([message("a", "one", 1)], backend)
    backend.torn = True
    with pytest.raises(Stop):
        run_dense(ListSource([message("a", None, 2)]), ENCODER, backend, COLLECTION)
    backend.torn = False
    assert stored(backend) == {}
    ingest([message("a", "one", 1)], backend)
    assert stored(backend) == {"a": "one"}


def test_a_word_index_that_is_added_later_is_filled_without_encoding() -> None:
    backend, words, encoder = MemoryBackend(), Words(), Encoder()
    messages = [message("a", "one", 1), message("b", "two", 1), message("c", "three", 1), message("c", None, 2)]
    ingest(messages, backend)
    report = run_dense(ListSource(messages), encoder, backend, COLLECTION, words=words)
    assert (sorted(words.held), encoder.encoded, report.written) == (["a", "b"], [], 0)


def test_a_word_index_that_a_crash_left_behind_is_brought_up_by_the_replay() -> None:
    backend, words = MemoryBackend(), Words()
    old, new = message("a", "one", 1), message("a", "two", 2)
    run_dense(ListSource([old, message("b", "b", 1)]), ENCODER, backend, COLLECTION, words=words)
    ingest([new, message("b", None, 2)], backend)  # as if the crash came before the words
    run_dense(ListSource([new, message("b", None, 2)]), ENCODER, backend, COLLECTION, words=words)
    assert {id: row.fields["text"] for id, row in words.held.items()} == {"a": "two"}


@pytest.mark.parametrize("dies_at", ["touch", "upsert", "delete", "words upsert", "words delete"])
def test_words_agree_with_the_store_after_a_crash_though_nothing_comes_again(dies_at: str) -> None:
    """The file that the next run reads holds none of the changes that the crash cut off."""
    backend, words = Backend(), Words()
    before = [message("a", "one", 1), message("b", "two", 1), message("c", "three", 1)]
    run_dense(ListSource(before), ENCODER, backend, COLLECTION, words=words)
    if dies_at.startswith("words"):
        words.fail = {dies_at.removeprefix("words "): [Stop("killed")]}
    else:
        backend.fail = {dies_at: [Stop("killed")]}
    changed = [message("a", "one more", 2), message("b", None, 2), message("d", "four", 1)]
    with pytest.raises(Stop, match="killed"):
        run_dense(ListSource(changed), ENCODER, backend, COLLECTION, words=words)
    run_dense(ListSource([]), ENCODER, backend, COLLECTION, words=words)
    assert {id: str(row.fields["text"]) for id, row in words.held.items()} == stored(backend)
    assert words.unsettled == []
