"""The conformance suite of the Source seam: subclass it, say how the medium is filled, inherit the tests."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bartizan_connector.stream.source import Batch, Message, Source

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
        """Put these messages into it, in this order."""
        ...

    def open(self, batch_size: int) -> Source:
        """A new source over it, as after a restart of the program."""
        ...

    def dead_letters(self) -> Sequence[DeadLetter]:
        """What was set aside, read the way another program would."""
        ...


class SourceSuite(ABC):
    """Each test gets an empty medium in a folder of its own."""

    @abstractmethod
    def make(self, folder: Path) -> Medium:
        """An empty medium."""

    def test_every_message_comes_in_order_with_its_exact_bytes(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            assert [message.value for message in _read(source, len(VALUES))] == list(VALUES)

    def test_batches_are_no_longer_than_asked(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            batches = list(_batches(source, len(VALUES)))
        assert all(0 < len(batch.messages) <= 3 for batch in batches)

    def test_positions_are_distinct_and_versions_grow(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(100)) as source:
            messages = _read(source, len(VALUES))
        assert len({message.position for message in messages}) == len(VALUES)
        versions = [message.version for message in messages]
        assert versions == sorted(set(versions))
        assert all(0 <= version < 2**63 for version in versions)

    def test_what_was_not_committed_comes_again_as_it_was(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(2)) as source:
            before = _read(source, len(VALUES))  # and never committed
        with closing(medium.open(3)) as source:
            assert _read(source, len(VALUES)) == before

    def test_what_follows_a_committed_batch_comes_again_after_a_restart(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(3)) as source:
            batches = _batches(source, len(VALUES))
            source.commit(next(batches))
            rest = [message for batch in batches for message in batch.messages]
        with closing(medium.open(3)) as source:
            again = _read_until(source, rest[-1].position)
        assert again[-len(rest) :] == rest

    def test_a_dead_letter_is_durable_once_its_batch_is_committed(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        source = medium.open(len(VALUES))
        batch = next(_batches(source, len(VALUES)))
        for message in batch.messages:
            source.dead_letter(message, f"because of {message.position}: ü")
        source.commit(batch)  # and not closed
        expected = [
            DeadLetter(
                position=message.position, reason=f"because of {message.position}: ü", value=message.value or b""
            )
            for message in batch.messages
        ]
        assert list(medium.dead_letters()) == expected
        source.close()

    def test_a_dead_letter_lost_in_a_crash_is_written_by_the_replay(self, tmp_path: Path) -> None:
        medium = self._filled(tmp_path)
        with closing(medium.open(4)) as source:
            source.dead_letter(_read(source, len(VALUES))[1], "before the crash")  # and never committed
        with closing(medium.open(4)) as source:
            for batch in _batches(source, len(VALUES)):
                for message in batch.messages:
                    if message.value == VALUES[1]:
                        source.dead_letter(message, "after it")
                source.commit(batch)
        assert ("after it", VALUES[1]) in [(letter.reason, letter.value) for letter in medium.dead_letters()]

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        source = self._filled(tmp_path).open(1)
        source.close()
        source.close()

    def _filled(self, folder: Path) -> Medium:
        medium = self.make(folder)
        medium.fill(VALUES)
        return medium


def _batches(source: Source, count: int) -> Iterator[Batch]:
    """Batches until that many messages have come; a stream has no end of its own."""
    seen = 0
    for batch in source.batches():
        yield batch
        seen += len(batch.messages)
        if seen >= count:
            return


def _read(source: Source, count: int) -> list[Message]:
    return [message for batch in _batches(source, count) for message in batch.messages]


def _read_until(source: Source, position: str) -> list[Message]:
    messages: list[Message] = []
    for batch in source.batches():
        messages += batch.messages
        if messages[-1].position == position:
            break
    return messages
