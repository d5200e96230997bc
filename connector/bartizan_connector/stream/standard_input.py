"""Documents from the program's standard input: JSON lines, read once, in their order.

What arrives now is newer than what arrived here before, and than what files and topics said before this moment. It is
not there to be read again: after a run that was killed, give the same lines again; what is stored is not encoded twice.
"""

import sys
import time
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from bartizan_connector.base.errors import Stop
from bartizan_connector.stream.jsonl import cut, lines_of
from bartizan_connector.stream.letter_file import SUFFIX, LetterFile
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.versions import stamp

LETTERS = Path(f"stdin{SUFFIX}")


class StandardInput:
    """A Source of the lines of one stream."""

    def __init__(
        self, *, dead_letters: Path | None = None, batch_size: int = 256, stream: BinaryIO | None = None
    ) -> None:
        self._letters = LetterFile(dead_letters or LETTERS)
        origin, first = f"stdin#{uuid4().hex[:16]}", stamp(int(time.time() * 1000))
        messages = (
            Message(
                position=f"stdin:{line.number}",
                value=line.value,
                version=first + line.number,
                origin=origin,
                offset=line.number,
                fault=line.fault,
            )
            for line in lines_of(stream or sys.stdin.buffer)
        )
        self.batch_size = batch_size
        self._batches = cut(messages, lambda: self.batch_size)
        self._begun = False
        self.ended = False

    @property
    def dead_letters(self) -> str:
        return str(self._letters.path)

    def backlog(self) -> int | None:
        return None

    def poll(self, timeout: float) -> Batch | None:
        if not self._begun:
            self._letters.begin()
            self._begun = True
        try:
            messages = next(self._batches, None)
        except OSError as error:
            raise Stop(f"cannot read standard input: {error.strerror}; what was read before it is stored") from error
        self.ended = messages is None
        return Batch(messages=messages, partition="stdin") if messages else None

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        """Make the dead letters durable."""
        self._letters.sync()

    def dead_letter(self, message: Message, reason: str) -> None:
        self._letters.add(message, reason)

    def close(self) -> None:
        self._letters.close()
