"""Dead letters in a file: each line is a message that cannot be written, with its position and the reason."""

import base64
import json
import os
from pathlib import Path
from typing import BinaryIO

from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.source import Message

SUFFIX = ".dead.jsonl"
_LONGEST_LINE = 8 * 16 * 2**20


class Letters:
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
        letter = {"position": message.position, "reason": reason, "version": message.version, **_original(message)}
        line = json.dumps(letter, ensure_ascii=False) + "\n"
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


def _original(message: Message) -> dict[str, str | None]:
    """The message's own bytes: as text, or in base64 when they are not UTF-8."""
    if message.value is None:
        return {"key": message.key, "text": None}
    try:
        return {"text": message.value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message.value).decode("ascii")}
