"""SourceSuite passes a source that is right and fails each one that is wrong in one verb."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Batch, Source
from bartizan_connector.testing import DeadLetter, Medium, SourceSuite
from tests.connector.stream.test_jsonl import JsonlMedium
from tests.connector.stream.topics import TopicMedium, TopicSource


class SharedTopic(SourceSuite):
    """The suite of a medium that keeps the place and is shared."""

    keeps_place = True
    patience = 0.05

    def make(self, folder: Path) -> Medium:
        return TopicMedium()

    def take_over(self, medium: Medium, source: Source) -> Source:
        assert isinstance(medium, TopicMedium)
        return HandingBack(medium, source)


class HandingBack(TopicSource):
    """A reader that takes everything, and gives it back when it is closed."""

    def __init__(self, medium: TopicMedium, former: Source) -> None:
        super().__init__(medium.topic)
        self._former = former
        medium.topic.assign_all(self)

    def close(self) -> None:
        if not self.closed:
            self._topic.assign_all(self._former)  # type: ignore[arg-type]
        super().close()


class TestTopicSource(SharedTopic):
    pass


class Changed:
    """A source of which one verb is another one."""

    def __init__(self, right: Source, **verbs: Callable[..., Any]) -> None:
        self._right = right
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        if name in self._verbs:
            change = self._verbs[name]
            return lambda *arguments: change(self._right, *arguments)
        return getattr(self._right, name)


def failing(suite: SourceSuite, folder: Path) -> set[str]:
    """The tests of the suite that fail."""
    failed = set()
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if name.startswith("test_"):
            place = folder / name
            place.mkdir()
            try:
                test(place)
            except (AssertionError, LookupError):
                failed.add(name)
    return failed


def backwards(source: Source, timeout: float) -> Batch | None:
    batch = source.poll(timeout)
    return batch and replace(batch, messages=tuple(reversed(batch.messages)))


def with_numbers_of_its_own(source: Source, timeout: float) -> Batch | None:
    batch = source.poll(timeout)
    return batch and replace(batch, messages=tuple(replace(each, version=2**62) for each in batch.messages))


def under_any_partition(source: Source, timeout: float) -> Batch | None:
    batch = source.poll(timeout)
    return batch and replace(batch, partition=batch.messages[0].position)


def without_offsets(source: Source, timeout: float) -> Batch | None:
    batch = source.poll(timeout)
    return batch and replace(batch, messages=tuple(replace(each, offset=0) for each in batch.messages))


def commits_one_too_many(source: Source, batch: Batch) -> None:
    source.commit(batch)
    following = source.poll(0.0)
    if following is not None:
        source.commit(following)


def lost_between(source: Source, timeout: float) -> Batch | None:
    batch = source.poll(timeout)
    return batch and replace(batch, messages=batch.messages[:2])


BROKEN: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "a commit that does nothing": (
        {"commit": lambda source, batch: None},
        "test_what_was_committed_does_not_come_again_where_the_medium_keeps_the_place",
    ),
    "a commit that takes more with it": (
        {"commit": commits_one_too_many},
        "test_what_follows_a_committed_batch_comes_again_after_a_restart",
    ),
    "a dead letter that is forgotten": (
        {"dead_letter": lambda source, message, reason: None},
        "test_a_dead_letter_is_durable_once_its_batch_is_committed",
    ),
    "messages in the wrong order": (
        {"poll": backwards},
        "test_every_message_comes_in_order_with_its_exact_bytes",
    ),
    "messages that are lost": (
        {"poll": lost_between},
        "test_every_message_comes_in_order_with_its_exact_bytes",
    ),
    "versions from the future": ({"poll": with_numbers_of_its_own}, "test_no_version_lies_in_the_future"),
    "a partition for every batch": (
        {"poll": under_any_partition},
        "test_what_is_in_one_partition_comes_as_that_partition",
    ),
    "offsets that do not grow": ({"poll": without_offsets}, "test_offsets_grow_within_an_origin"),
    "a poll that gives nothing": ({"poll": lambda source, timeout: None}, "test_batches_are_no_longer_than_asked"),
    "everything owned for ever": (
        {"owns": lambda source, batch: True},
        "test_what_went_to_another_reader_is_not_owned_even_when_it_comes_back",
    ),
    "nothing owned at all": ({"owns": lambda source, batch: False}, "test_what_was_just_read_is_owned"),
    "a backlog that does not shrink": ({"backlog": lambda source: 100}, "test_the_backlog_shrinks_to_nothing"),
    "a close that fails the second time": (
        {"close": lambda source: source.__dict__.pop("_turn")},
        "test_closing_twice_is_fine",
    ),
}
"""What is wrong with one verb, and a test that must tell."""


@pytest.mark.packaging
@pytest.mark.parametrize(("verbs", "told"), BROKEN.values(), ids=list(BROKEN))
def test_a_source_that_breaks_one_verb_fails(verbs: dict[str, Callable[..., Any]], told: str, tmp_path: Path) -> None:
    class BrokenMedium(TopicMedium):
        def open(self, batch_size: int) -> Any:
            return Changed(super().open(batch_size), **verbs)

    class BrokenSuite(SharedTopic):
        def make(self, folder: Path) -> Medium:
            return BrokenMedium()

        def take_over(self, medium: Medium, source: Source) -> Source:
            assert isinstance(source, Changed)
            return super().take_over(medium, source._right)

    assert told in failing(BrokenSuite(), tmp_path)


def test_a_source_that_ends_before_everything_came_fails(tmp_path: Path) -> None:
    class Hasty(TopicSource):
        @property
        def ended(self) -> bool:
            return True

    class HastyMedium(TopicMedium):
        def open(self, batch_size: int) -> TopicSource:
            source = Hasty(self.topic, batch_size)
            self.topic.assign_all(source)
            return source

    class HastySuite(SharedTopic):
        def make(self, folder: Path) -> Medium:
            return HastyMedium()

    assert "test_it_has_ended_when_everything_came_or_is_followed" in failing(HastySuite(), tmp_path)


def test_a_source_that_is_right_fails_nothing(tmp_path: Path) -> None:
    assert failing(SharedTopic(), tmp_path) == set()


def test_a_file_source_with_a_commit_that_does_nothing_fails(tmp_path: Path) -> None:
    class Lazy(JsonlSource):
        def commit(self, batch: Batch) -> None:
            """Does nothing."""

    class LazyMedium(JsonlMedium):
        def open(self, batch_size: int) -> Source:
            return Lazy(self.path, batch_size=batch_size)

        def dead_letters(self) -> Sequence[DeadLetter]:
            return super().dead_letters() if Path(f"{self.path}.dead.jsonl").exists() else []

    class LazySuite(SourceSuite):
        def make(self, folder: Path) -> Medium:
            return LazyMedium(folder)

    assert failing(LazySuite(), tmp_path) == {"test_a_dead_letter_is_durable_once_its_batch_is_committed"}
