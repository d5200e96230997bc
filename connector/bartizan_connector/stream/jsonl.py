"""Documents from JSON Lines files, read as a stream with constant memory.

There is no cursor file. A run reads its files from the beginning, and the heads that the collection keeps tell which
lines are there already: a resume costs one look-up a batch and encodes nothing twice. A cursor beside the file could
claim lines whose index was deleted, moved or restored from a backup; the collection's own heads cannot.

A line that carries no `_version` is placed by its file: its origin is the file in its present state (path; size, inode
and times), its offset the line number, its version the modification time in milliseconds × 2²⁰ + line number. So of
two lines with the same id the later one counts, and a file that was edited is newer than what was read from it before,
even when it got an older modification time (a backup that was restored): what the file says now is what is stored.
Against other files and topics the modification time decides. One that lies in the future counts as the moment at which
the file got it, which is the same at every reading; so a replay of such a file is no news either.

What a store has forgotten that was killed during the run is read again from where it had made durable what it got; that
place is known to this run only.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.stream.letter_file import SUFFIX, LetterFile
from bartizan_connector.stream.packed import DAMAGED, PACKED, unpacked
from bartizan_connector.stream.seeming import beginning_of, seeming
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.versions import stamp

MAX_LINE_BYTES = 16 * 2**20
MAX_BATCH_BYTES = 16 * 2**20
"""A batch ends here even when it has few lines: what is held in memory is bounded by bytes, not by luck."""
_SKIM_BYTES = 2**20
_BEGINNING_BYTES = 1024


@dataclass(slots=True)
class _Reading:
    """How far one file is read, by the numbers of its lines."""

    given: int = 0
    """The last one that was given; what was given again is still to come."""
    farthest: int = 0
    """The last one that was ever given."""
    committed: int = 0
    generation: int = 0
    """How often it was given again."""
    messages: int = 0
    dead: int = 0
    why: str = ""
    """The first of the dead ones is."""
    aside: set[int] = field(default_factory=set)
    """The dead ones that are not committed: one that is given again is set aside once."""


class JsonlSource:
    """One JSON Lines file, or every `*.jsonl` (`*.jsonl.gz`, `*.jsonl.zst`) of a folder in order of name."""

    def __init__(
        self,
        path: AnyPath,
        *,
        dead_letters: AnyPath | None = None,
        batch_size: int = 256,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        path = as_path(path, "[source] path")
        aside = dead_letters_of(path) if dead_letters is None else as_path(dead_letters, "[source] dead_letters")
        self._path = path
        self._root = path if path.is_dir() else path.parent
        self._files = _files_of(path, aside)
        self._letters = LetterFile(aside)
        self.batch_size = batch_size
        self._max_line_bytes = max_line_bytes
        self._readings = {self._name_of(file): _Reading() for file in self._files}
        """Of each file, by its name in positions."""
        self._left = list(self._files)
        """Files with lines to be given, the one that is being read first."""
        self._batches: Iterator[Batch] | None = None
        self._begun = False
        self._ended = False
        self._lines: int | None = None
        self._told: dict[Path, str] = {}
        """What `state` was told of, and what was read; no other file is read after that."""

    @property
    def dead_letters(self) -> str:
        """The dead-letter file."""
        return str(self._letters.path)

    @property
    def ended(self) -> bool:
        """True once `poll` has given every line."""
        return self._ended

    @property
    def identity(self) -> str:
        """Which files these are, whatever stands in them."""
        return str(self._path.resolve())

    @property
    def state(self) -> str:
        """These files as they are now, and how they are read."""
        try:
            origins = {file: _origin_of(file, file.stat()) for file in self._files}
        except OSError as error:
            raise WrongUse(f"cannot read {error.filename}: {error.strerror}") from error
        self._told = origins | self._told
        return _digest(repr((self._max_line_bytes, list(origins.values()))).encode())

    def backlog(self) -> int | None:
        """How many lines are still to be read; the first time a quick skim. Unknown where a file is packed."""
        if any(file.suffix in PACKED for file in self._files):
            return None
        if self._lines is None:
            self._lines = sum(_lines_in(file) for file in self._files)
        return 0 if self._ended else max(0, self._lines - sum(each.farthest for each in self._readings.values()))

    def poll(self, timeout: float) -> Batch | None:
        """The next lines of a file, the first ones first; the dead letters of an earlier run are replaced by this
        run's."""
        if not self._begun:
            self._letters.begin()
            self._begun = True
        self._batches = self._batches or self._read()
        batch = next(self._batches, None)
        self._ended = batch is None
        return batch

    def owns(self, batch: Batch) -> bool:
        """Files are given to nobody else; not what was given again since."""
        return batch.generation == self._readings[batch.partition].generation

    def note(self, batch: Batch) -> None:
        """It is known what was given."""

    def give_again(self, partition: str) -> None:
        """All that was given and not committed, of other files too: an id may stand in several."""
        again = {name for name, each in self._readings.items() if name == partition or each.given > each.committed}
        for reading in map(self._readings.__getitem__, again):
            reading.given = reading.committed
            reading.generation += 1
        self._left = [file for file in self._files if file in self._left or self._name_of(file) in again]
        self._batches, self._ended = None, False

    def commit(self, batch: Batch) -> None:
        """Make the dead letters durable. From here on it would be given again; the next run needs no mark of that."""
        self._letters.sync()
        reading = self._readings[batch.partition]
        reading.committed = batch.messages[-1].offset
        reading.aside = {line for line in reading.aside if line > reading.committed}

    def dead_letter(self, message: Message, reason: str) -> None:
        """Append the message and its reason to the dead-letter file."""
        reading = self._readings[message.position.rpartition(":")[0]]
        if message.offset in reading.aside:
            return
        reading.aside.add(message.offset)
        reading.dead += 1
        reading.why = reading.why or reason
        self._letters.add(message, reason)

    def verdict(self) -> str | None:
        """The files of which every single line was refused, and what each seems to be."""
        told = []
        for file in self._files:
            reading = self._readings[self._name_of(file)]
            if reading.messages and reading.dead == reading.messages:
                seems = seeming(file, beginning_of(file))
                told.append(
                    f"every line of {file} was refused ({reading.messages:,}), the first because: "
                    f"{reading.why}{'. The file seems to be ' if seems else ''}{seems}"
                )
        return "; ".join(told) or None

    def close(self) -> None:
        """Let go of the dead-letter file."""
        self._letters.close()

    def _read(self) -> Iterator[Batch]:
        while self._left:
            file = self._left[0]
            try:
                with unpacked(file) as stream:
                    yield from self._batches_of(stream, file)
            except DAMAGED as error:
                why = (isinstance(error, OSError) and error.strerror) or str(error)
                raise Stop(
                    f"cannot read {file}: {why}; what was read before it is stored{self._doubt(file)}"
                ) from error
            self._left.remove(file)

    def _batches_of(self, stream: BinaryIO, file: Path) -> Iterator[Batch]:
        """What one file has still to give; a batch never reaches into the next file."""
        name = self._name_of(file)
        reading = self._readings[name]
        state = os.fstat(stream.fileno())
        origin = _origin_of(file, state)
        if self._told.setdefault(file, origin) != origin:
            raise Stop(
                f"{file} is not what it was when this run began; nothing of it as it is was read. Run again"
                f"{self._doubt(file)}"
            )
        first, after = stamp(min(state.st_mtime_ns, state.st_ctime_ns) // 1_000_000), reading.given
        messages = (
            Message(
                position=f"{name}:{line.number}",
                value=line.value,
                version=first + line.number,
                origin=origin,
                offset=line.number,
                timestamp=state.st_mtime,
                doubtful=line.number <= reading.farthest,
                fault=line.fault,
            )
            for line in lines_of(stream, self._max_line_bytes)
            if line.number > after
        )
        for batch in cut(messages, lambda: self.batch_size):
            reading.given = batch[-1].offset
            reading.messages += sum(message.offset > reading.farthest for message in batch)
            reading.farthest = max(reading.farthest, reading.given)
            yield Batch(messages=batch, partition=name, generation=reading.generation)

    def _doubt(self, file: Path) -> str:
        """What to do where it was to be read again."""
        again = self._readings[self._name_of(file)].generation
        return ". The server may have forgotten some of it: look with `bartizan verify`" if again else ""

    def _name_of(self, file: Path) -> str:
        return str(file.relative_to(self._root))


def dead_letters_of(path: Path) -> Path:
    """Where the dead letters of this source go unless told otherwise."""
    if path.name in ("", ".."):  # the folder one is in, or one around it
        path = Path(os.path.abspath(path))
    if not path.name:
        raise WrongUse(f"{path} is the root of all files; give the file or folder of the documents as [source] path")
    return path.with_name(path.name + SUFFIX)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a stream that is not blank, by its number from 1."""

    number: int
    value: bytes
    fault: str | None


def lines_of(stream: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines that are not blank; of one that is too long the beginning, and the fault."""
    number = start = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        length = len(line)
        if length > max_bytes and not line.endswith(b"\n"):
            length += _skipped(stream)
            fault = (
                f"the line has {length:,} bytes (from byte {start:,} of the file); "
                f"at most {max_bytes:,} are read; only its beginning is kept here"
            )
            yield Line(number, line[:_BEGINNING_BYTES], fault)
            start += length + 1
            continue
        start += length
        if line.strip():
            yield Line(number, line.removesuffix(b"\n"), None)


def cut(messages: Iterable[Message], size: Callable[[], int]) -> Iterator[tuple[Message, ...]]:
    """Batches of at most so many messages as `size` says then, and of a bounded number of bytes."""
    batch: list[Message] = []
    used = 0
    for message in messages:
        length = len(message.value or b"")
        if batch and (len(batch) >= size() or used + length > MAX_BATCH_BYTES):
            yield tuple(batch)
            batch, used = [], 0
        batch.append(message)
        used += length
    if batch:
        yield tuple(batch)


def _files_of(path: Path, dead_letters: Path) -> list[Path]:
    if path.is_dir():
        names = ("*.jsonl", *(f"*.jsonl{suffix}" for suffix in PACKED))
        found = (file for name in names for file in path.glob(name))
        files = sorted(file for file in found if file.is_file() and not file.name.endswith(SUFFIX))
        if not files:
            raise WrongUse(f"the folder {path} holds no *.jsonl file, packed ({', '.join(PACKED)}) or not")
    elif path.is_file():
        files = [path]
    else:
        raise WrongUse(f"there is no JSON Lines file or folder at {path}")
    if any(dead_letters.exists() and dead_letters.samefile(file) for file in files):
        raise WrongUse(f"the dead letters would overwrite the source {dead_letters}; give them a file of their own")
    return files


def _origin_of(file: Path, state: os.stat_result) -> str:
    """The file as a sequence, and its present state: any edit changes the second, nothing but its path the first."""
    facts = (state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
    return f"jsonl:{_digest(os.fsencode(file.resolve()))}#{_digest(repr(facts).encode())}"


def _digest(facts: bytes) -> str:
    return hashlib.sha256(facts).hexdigest()[:16]


def _lines_in(file: Path) -> int:
    try:
        with file.open("rb") as stream:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(_SKIM_BYTES), b""))
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from error


def _skipped(stream: BinaryIO) -> int:
    """Go to the next line, a piece at a time; how many bytes were passed over, without the line's end."""
    passed = 0
    while piece := stream.readline(_SKIM_BYTES):
        passed += len(piece)
        if piece.endswith(b"\n"):
            return passed - 1
    return passed
