"""The conformance suite of the Source seam: subclass it, say how the medium is filled, inherit the tests."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from bartizan_connector.store.checks import MAX_ORIGIN_BYTES
from bartizan_connector.stream.source import Batch, Message, Source
from bartizan_connector.stream.versions import latest

VALUES = (
    b'{"_id": "a", "text": "one"}',
    b"not json",
    b"  indented, with a tail  ",
    b"caf\xe9 is not UTF-8",
    "ü \u2028 is no line end, nor is \x85 \x0b \x0c".encode(),
    b"a carriage return is kept\r",
    b"\x00\x01\xff",
    b'{"_id": "a", "_deleted": true}',
)
"""Messages that a careless source loses, splits or changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter as another program finds it."""

    position: str
    reason: str
    value: bytes


class Medium(Protocol):
    """What a source reads from: a file, a topic."""

    def fill(self, values: Sequence[bytes]) -> None:
        """Put these messages into it, in this order, all into one partition."""
        ...

    def open(self, batch_size: int) -> Source:
        """A new source over it, as after a restart of the program."""
        ...

    def dead_letters(self) -> Sequence[DeadLetter]:
        """What was set aside, read the way another program would."""
        ...


class SourceSuite(ABC):
    """Each test gets an empty medium in a folder of its own.

    What not every medium has is an attribute: set it where yours does, or override the method.
    """

    keeps_place = False
    """Whether the medium remembers what was committed, so that only the rest comes after a restart."""
    patience = 10.0
    """Seconds within which a message that is there is given."""

    @abstractmethod
    def make(self, folder: Path) -> Medium:
        """An empty medium."""

    def take_over(self, medium: Medium, source: Source) -> Source | None:
        """Another reader, to which everything that `source` reads has gone, until that reader is closed; None where a
        medium is never shared."""
        return None

    # ---- reading

    def test_every_message_comes_in_order_with_its_exact_bytes(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            assert [message.value for message in self._read(source, len(VALUES))] == list(VALUES)

    def test_batches_are_no_longer_than_asked(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            batches = list(self._batches(source, len(VALUES)))
        assert all(0 < len(batch.messages) <= 3 for batch in batches)

    def test_what_is_in_one_partition_comes_as_that_partition(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            batches = list(self._batches(source, len(VALUES)))
        assert len({(batch.partition, batch.generation) for batch in batches}) == 1

    def test_positions_are_distinct_and_versions_grow(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(100)) as source:
            messages = self._read(source, len(VALUES))
        assert len({message.position for message in messages}) == len(VALUES)
        versions = [message.version for message in messages]
        assert versions == sorted(set(versions))
        assert all(0 <= version < 2**63 for version in versions)

    def test_offsets_grow_within_an_origin(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            messages = self._read(source, len(VALUES))
        for origin in {message.origin for message in messages} - {""}:
            offsets = [message.offset for message in messages if message.origin == origin]
            assert offsets == sorted(set(offsets))
            assert all(0 <= offset < 2**63 for offset in offsets)
            assert len(origin.encode()) <= MAX_ORIGIN_BYTES

    def test_no_version_lies_in_the_future(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(100)) as source:
            newest = max(message.version for message in self._read(source, len(VALUES)))
        assert newest <= latest(time.time())

    def test_an_empty_medium_gives_nothing_and_waits_no_longer_than_asked(self, tmp_path: Path) -> None:
        medium = self.make(tmp_path)
        medium.fill([])
        with closing(medium.open(3)) as source:
            started = time.monotonic()
            assert source.poll(0.05) is None
            assert time.monotonic() - started < self.patience

    def test_it_has_ended_when_everything_came_or_is_followed(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            assert not source.ended, "there are messages to come"
            self._read(source, len(VALUES))
            assert source.poll(0.05) is None
            ended = source.ended
            assert source.poll(0.05) is None
            assert source.ended == ended, "a source that has ended has ended for good"

    def test_the_backlog_shrinks_to_nothing(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            before = source.backlog()
            left = [source.backlog() for _ in self._batches(source, len(VALUES))]
            source.poll(0.05)
            after = source.backlog()
        if before is not None:
            assert before >= len(VALUES)
            assert left == sorted((each or 0 for each in left), reverse=True)
            assert after == 0

    # ---- committing

    def test_what_was_not_committed_comes_again_as_it_was(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(2)) as source:
            before = self._read(source, len(VALUES))  # and never committed
        with closing(medium.open(3)) as source:
            assert self._read(source, len(VALUES)) == before

    def test_what_follows_a_committed_batch_comes_again_after_a_restart(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            batches = self._batches(source, len(VALUES))
            source.commit(next(batches))
            rest = [message for batch in batches for message in batch.messages]
        with closing(medium.open(3)) as source:
            again = self._read_until(source, rest[-1].position)
        assert again[-len(rest) :] == rest

    def test_what_was_committed_does_not_come_again_where_the_medium_keeps_the_place(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        source = medium.open(3)
        batches = list(self._batches(source, len(VALUES)))
        source.commit(batches[0])
        source.commit(batches[1])
        source.close()
        rest = [message for batch in batches[2 if self.keeps_place else 0 :] for message in batch.messages]
        with closing(medium.open(3)) as source:
            assert self._read_until(source, rest[-1].position) == rest

    def test_when_all_was_committed_nothing_comes_again_where_the_medium_keeps_the_place(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            for batch in self._batches(source, len(VALUES)):
                source.commit(batch)
        with closing(medium.open(3)) as source:
            assert (source.poll(0.5) is None) == self.keeps_place

    def test_a_commit_is_durable_before_the_source_is_closed(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            first = next(self._batches(source, 1))
            source.commit(first)  # and not closed, as in a crash
            with closing(self.take_over(medium, source) or medium.open(3)) as other:
                messages = self._read(other, 1)
        assert (messages[0] != first.messages[0]) == self.keeps_place

    # ---- dead letters

    def test_a_dead_letter_is_durable_once_its_batch_is_committed(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(len(VALUES))) as source:
            batch = next(self._batches(source, len(VALUES)))
            for message in batch.messages:
                source.dead_letter(message, f"because of {message.position}: ü")
            source.commit(batch)  # and not closed
            letters = list(medium.dead_letters())
            assert source.dead_letters
        assert letters == [
            DeadLetter(
                position=message.position, reason=f"because of {message.position}: ü", value=message.value or b""
            )
            for message in batch.messages
        ]

    def test_a_dead_letter_lost_in_a_crash_is_written_by_the_replay(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(4)) as source:
            source.dead_letter(self._read(source, len(VALUES))[1], "before the crash")  # and never committed
        with closing(medium.open(4)) as source:
            for batch in self._batches(source, len(VALUES)):
                for message in batch.messages:
                    if message.value == VALUES[1]:
                        source.dead_letter(message, "after it")
                source.commit(batch)
        assert ("after it", VALUES[1]) in [(letter.reason, letter.value) for letter in medium.dead_letters()]

    # ---- owning

    def test_what_was_just_read_is_owned(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            for batch in self._batches(source, len(VALUES)):
                assert source.owns(batch)
                source.commit(batch)
                assert source.owns(batch)

    def test_what_went_to_another_reader_is_not_owned_even_when_it_comes_back(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            first, second = islice(self._batches(source, len(VALUES)), 2)
            source.commit(first)
            other = self.take_over(medium, source)
            if other is None:
                return
            assert not source.owns(second)
            (again, *_) = self._batches(other, 1)
            assert again.messages[0] == second.messages[0], "the new owner begins after what was committed"
            assert other.owns(again)
            other.close()
            back = next(self._batches(source, 1))
            assert source.owns(back)
            assert not source.owns(second), "it was read under an assignment that is over"
            assert back.generation > second.generation

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        source = self._filled(tmp_path).open(1)
        source.close()
        source.close()

    def _filled(self, folder: Path) -> Medium:
        medium = self.make(folder)
        medium.fill(VALUES)
        return medium

    def _batches(self, source: Source, count: int) -> Iterator[Batch]:
        """Batches until that many messages have come; a stream has no end of its own."""
        deadline = time.monotonic() + self.patience
        seen = 0
        while seen < count:
            batch = source.poll(0.2)
            if batch is None:
                assert not source.ended, f"the source ended after {seen} of {count} messages"
                assert time.monotonic() < deadline, f"{seen} of {count} messages came within {self.patience} seconds"
                continue
            seen += len(batch.messages)
            yield batch

    def _read(self, source: Source, count: int) -> list[Message]:
        return [message for batch in self._batches(source, count) for message in batch.messages]

    def _read_until(self, source: Source, position: str) -> list[Message]:
        messages: list[Message] = []
        for batch in self._batches(source, sys.maxsize):
            messages += batch.messages
            if messages[-1].position == position:
                break
        return messages
