"""Dead letters in a file: each line is a message that cannot be written, with its position and the reason."""

import base64
import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bartizan_connector.base.aside import file_aside, sync_folder
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.again import Again
from bartizan_connector.stream.letters import Chosen, Letter, Outcome, id_in
from bartizan_connector.stream.source import Message, Source

SUFFIX = ".dead.jsonl"
_LONGEST_LINE = 8 * 16 * 2**20


class LetterFile:
    """One file, made by the first letter. It holds what is wrong now: each run begins it anew."""

    def __init__(self, path: Path) -> None:
        """Refuses a file that holds anything else: nothing else is ever overwritten."""
        if path.exists() and not _holds_letters(path):
            raise WrongUse(f"{path} holds something else than dead letters; give them a file of their own")
        self.path = path
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        """Forget those of an earlier run."""
        self.close()
        try:
            if self.path.exists():
                self.path.open("wb").close()
        except OSError as error:
            raise self._cannot(error) from error

    def add(self, message: Message, reason: str) -> None:
        line = json.dumps(_told(message, reason), ensure_ascii=False) + "\n"
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
                sync_folder(self.path.parent)
            self._file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise self._cannot(error) from error

    def sync(self) -> None:
        """Make them durable."""
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot(error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> Stop:
        return Stop(
            f"cannot write the dead letters to {self.path}: {error.strerror}. Make room or set "
            "[source] dead_letters to another place, then run again: nothing is lost, nothing is encoded twice"
        )


def _holds_letters(path: Path) -> bool:
    """Whether the file is empty, or begins as an earlier run left it."""
    if not path.is_file():
        return not path.is_dir()  # a device or a pipe holds nothing that could be lost
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
        return not first or {"position", "reason", "version"} <= json.loads(first).keys()
    except (OSError, ValueError, AttributeError):
        return False


class FiledLetters:
    """The letters of a file, as a run left them. What is seen to is taken out of it by `flush`."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not _holds_letters(path):
            raise WrongUse(f"{path} holds something else than dead letters; look at [source] dead_letters")
        self._path = path
        self._state: object = None
        """The file as it was when its letters were read last."""
        self._outcomes: dict[str, str | None] = {}
        """By place: why the letter was refused again; None: it is done."""

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    def letters(self) -> Generator[Letter, None, None]:
        """A line each; the place is its number."""
        self._outcomes, self._state = {}, self._stat()
        for number, line in self._lines():
            yield _letter_of(str(number), self._read(number, line))

    def again(self, chosen: Chosen) -> Source:
        return Again(self, chosen, self._outcomes_add)

    def flush(self) -> None:
        """Write the file anew, without what is done."""
        if not self._outcomes:
            return
        if self._stat() != self._state:
            raise Stop(
                f"{self._path} was changed by somebody else meanwhile and stays as it is; what was given again is "
                "stored. Run the replay again: nothing is encoded twice"
            )
        with file_aside(self._path) as aside, aside.open("wb") as file:
            for number, line in self._lines():
                reason = self._outcomes.get(str(number), "")
                if reason:
                    told = json.dumps(self._read(number, line) | {"reason": reason}, ensure_ascii=False) + "\n"
                    file.write(told.encode(errors="backslashreplace"))
                elif reason is not None:
                    file.write(line)
        self._outcomes = {}

    def close(self) -> None:
        """Nothing is held open."""

    def _outcomes_add(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes.update((letter.place, reason) for letter, reason in outcomes)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """What there is, by number from 1; a last line that was cut off is none."""
        if not self._path.is_file():
            return
        try:
            with self._path.open("rb") as file:
                yield from ((number, line) for number, line in enumerate(file, start=1) if line.endswith(b"\n"))
        except OSError as error:
            raise WrongUse(f"cannot read the dead letters in {self._path}: {error.strerror}") from error

    def _read(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            told = json.loads(line)
            if {"position", "reason", "version"} <= told.keys():
                return dict(told)
        except (ValueError, AttributeError):
            pass
        raise Stop(f"line {number} of {self._path} is no dead letter; take it out, or ingest the source again")

    def _stat(self) -> object:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _told(message: Message, reason: str) -> dict[str, Any]:
    """A letter as its line says it: where the message stood, so that it can be given again there, and its own bytes,
    as text, or in base64 when they are not UTF-8."""
    told: dict[str, Any] = {
        "position": message.position,
        "reason": reason,
        "version": message.version,
        "origin": message.origin,
        "offset": message.offset,
        "time": round(time.time(), 3),
    }
    if message.fault is not None:
        told["cut"] = True
    if message.key is not None:
        told["key"] = message.key
    if message.value is None:
        return told | {"text": None}
    try:
        return told | {"text": message.value.decode()}
    except UnicodeDecodeError:
        return told | {"base64": base64.b64encode(message.value).decode("ascii")}


def _letter_of(place: str, told: dict[str, Any]) -> Letter:
    text, packed = told.get("text"), told.get("base64")
    value = base64.b64decode(packed) if packed is not None else None if text is None else str(text).encode()
    message = Message(
        position=place,
        value=value,
        key=told.get("key"),
        version=told["version"],
        origin=told.get("origin", ""),
        offset=told.get("offset", 0),
        late=True,
        fault=told["reason"] if told.get("cut") else None,
    )
    return Letter(
        place=place,
        source=told["position"],
        message=message,
        id=id_in(message.key, value),
        reason=told["reason"],
        time=told.get("time"),
    )
