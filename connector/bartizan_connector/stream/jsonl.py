"""Documents from JSON Lines files, read as a stream with constant memory.

There is no cursor file. A run reads its files from the beginning, and the heads that the collection keeps tell which
lines are there already: a resume costs one look-up a batch and encodes nothing twice. A cursor beside the file could
claim lines whose index was deleted, moved or restored from a backup; the collection's own heads cannot.

A line that carries no `_version` gets one that grows with every edit of the file and with every line of it:
modification time in milliseconds × 2²⁰ + line number. An edited file is therefore newer than what was read before, and
of two lines with the same id the later one counts.
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.source import Batch, Message

MAX_LINE_BYTES = 16 * 2**20
MAX_BATCH_BYTES = 16 * 2**20
"""A batch ends here even when it has few lines: what is held in memory is bounded by bytes, not by luck."""
DEAD_SUFFIX = ".dead.jsonl"
_LINE_BITS = 20
_SKIM_BYTES = 2**20
_BEGINNING_BYTES = 1024


class JsonlSource:
    """One JSON Lines file, or every `*.jsonl` of a folder in order of name."""

    def __init__(
        self,
        path: Path,
        *,
        dead_letters: Path | None = None,
        batch_size: int = 256,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self.dead_letters = dead_letters or dead_letters_of(path)
        self._root = path if path.is_dir() else path.parent
        self._files = _files_of(path, self.dead_letters)
        self._batch_size = batch_size
        self._max_line_bytes = max_line_bytes
        self._letters: BinaryIO | None = None

    def count(self) -> int:
        """How many lines there are, for a progress bar; a quick skim."""
        return sum(_lines_in(file) for file in self._files)

    def batches(self) -> Iterator[Batch]:
        """Every line, from the beginning; the dead letters of an earlier run are replaced by this run's."""
        self._start_dead_letters_afresh()
        messages: list[Message] = []
        size = 0
        for message in self._messages():
            length = len(message.value or b"")
            if messages and (len(messages) >= self._batch_size or size + length > MAX_BATCH_BYTES):
                yield Batch(messages=tuple(messages))
                messages, size = [], 0
            messages.append(message)
            size += length
        if messages:
            yield Batch(messages=tuple(messages))

    def commit(self, batch: Batch) -> None:
        """Make the dead letters durable; what was written needs no mark of ours (see above)."""
        if self._letters is None:
            return
        try:
            self._letters.flush()
            os.fsync(self._letters.fileno())
        except OSError as error:
            raise self._cannot_set_aside(error) from error

    def dead_letter(self, message: Message, reason: str) -> None:
        """Append the message and its reason to the dead-letter file."""
        letter = {"position": message.position, "reason": reason, "version": message.version, **_original(message)}
        line = json.dumps(letter, ensure_ascii=False) + "\n"
        try:
            if self._letters is None:
                self.dead_letters.parent.mkdir(parents=True, exist_ok=True)
                self._letters = self.dead_letters.open("ab")
                _sync_folder(self.dead_letters.parent)
            self._letters.write(line.encode())
        except OSError as error:
            raise self._cannot_set_aside(error) from error

    def close(self) -> None:
        """Let go of the dead-letter file."""
        if self._letters is None:
            return
        letters, self._letters = self._letters, None
        try:
            letters.close()
        except OSError as error:
            raise self._cannot_set_aside(error) from error

    def _messages(self) -> Iterator[Message]:
        for file in self._files:
            try:
                with file.open("rb") as stream:
                    yield from self._messages_of(stream, str(file.relative_to(self._root)))
            except OSError as error:
                raise Stop(f"cannot read {file}: {error.strerror}; what was read before it is stored") from error

    def _messages_of(self, stream: BinaryIO, name: str) -> Iterator[Message]:
        modified = os.fstat(stream.fileno()).st_mtime_ns // 1_000_000
        number = 0
        while line := stream.readline(self._max_line_bytes + 1):
            number += 1
            position, version = f"{name}:{number}", (modified << _LINE_BITS) + number
            if len(line) > self._max_line_bytes and not line.endswith(b"\n"):
                start = stream.tell() - len(line)
                fault = (
                    f"the line has {_skip_line(stream, start):,} bytes (from byte {start:,} of the file); "
                    f"at most {self._max_line_bytes:,} are read; only its beginning is kept here"
                )
                yield Message(position=position, value=line[:_BEGINNING_BYTES], version=version, fault=fault)
            elif line.strip():
                yield Message(position=position, value=line.removesuffix(b"\n"), version=version)

    def _start_dead_letters_afresh(self) -> None:
        self.close()
        try:
            if self.dead_letters.exists():
                self.dead_letters.open("wb").close()
        except OSError as error:
            raise self._cannot_set_aside(error) from error

    def _cannot_set_aside(self, error: OSError) -> Stop:
        return Stop(
            f"cannot write the dead letters to {self.dead_letters}: {error.strerror}. Make room or set "
            "[source] dead_letters to another place, then run again: nothing is lost, nothing is encoded twice"
        )


def dead_letters_of(path: Path) -> Path:
    """Where the dead letters of this source go unless told otherwise."""
    return path.with_name(path.name + DEAD_SUFFIX)


def _files_of(path: Path, dead_letters: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.jsonl") if not file.name.endswith(DEAD_SUFFIX))
        if not files:
            raise WrongUse(f"the folder {path} holds no *.jsonl file")
    elif path.is_file():
        files = [path]
    else:
        raise WrongUse(f"there is no JSON Lines file or folder at {path}")
    if dead_letters.resolve() in {file.resolve() for file in files}:
        raise WrongUse(f"the dead letters would overwrite the source {dead_letters}; give them a file of their own")
    return files


def _lines_in(file: Path) -> int:
    try:
        with file.open("rb") as stream:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(_SKIM_BYTES), b""))
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from error


def _skip_line(stream: BinaryIO, start: int) -> int:
    """Go to the next line, a piece at a time; the length of the line that began at `start`, without its end."""
    while piece := stream.readline(_SKIM_BYTES):
        if piece.endswith(b"\n"):
            return stream.tell() - start - 1
    return stream.tell() - start


def _original(message: Message) -> dict[str, str | None]:
    """The message's own bytes: as text, or in base64 when they are not UTF-8."""
    if message.value is None:
        return {"key": message.key, "text": None}
    try:
        return {"text": message.value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message.value).decode("ascii")}


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, not only its content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
