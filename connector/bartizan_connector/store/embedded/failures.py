"""What SQLite says, as the errors of this project: full, damaged, busy, closed."""

import errno
import sqlite3
from pathlib import Path
from types import TracebackType

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse

APPLICATION = 0x42525A4E
"""SQLite's application_id of our files: "BRZN"."""
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE")
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT_READ")
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class calling:
    """Translates what SQLite raises inside."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, sqlite3.Error):
            raise meaning(self._path, error) from error
        if isinstance(error, OSError):
            if error.errno in _FULL_ERRNOS:
                raise no_room(self._path, str(error)) from error
            raise Stop(f"the store {self._path} cannot be used: {error.strerror or error}") from error


def meaning(path: Path, error: sqlite3.Error) -> BartizanError:
    """What a person should know, and what the caller should do."""
    name, told = getattr(error, "sqlite_errorname", ""), str(error)
    if name.startswith(_FULL):
        return no_room(path, told)
    if name.startswith(_BUSY):
        return Retry(f"the store {path} is being written by another process ({told})", after=1.0)
    if name.startswith(_DAMAGED) or "malformed" in told or "no such table" in told:
        return damaged(path, told)
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in told:
        return WrongUse(f"the store {path} is closed; open it again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return Stop(f"the store {path} cannot be opened or written: {told}; see who may write to it and its folder")
    return Stop(f"the store {path} cannot be used: {told}")


def no_room(path: Path, told: str) -> Stop:
    """A full disk; the transaction was rolled back."""
    return Stop(
        f"the store {path} has no room to write: {told}. Nothing of this batch was written, what was stored is kept "
        "and can be searched; make room and run again"
    )


def damaged(path: Path, told: str) -> Stop:
    """A file that is no whole store any more."""
    return Stop(
        f"the store {path} is damaged or was copied only halfway: {told}. Bring back a whole copy (`{path.name}` with "
        f"`{path.name}-wal` beside it, if there is one), or remove it and ingest again"
    )


def require_possible(path: Path) -> None:
    """Refuse what can be no file: a folder, or a path through one that is none."""
    above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise WrongUse(f"the store {path} cannot be used: {above} is a file; give [backend] uri another path")
    if path.is_dir():
        raise WrongUse(
            f"{path} is a folder, and no store of Bartizan is one; give [backend] uri the path of a file, or "
            "'milvus-lite:PATH' if it is a Milvus Lite index"
        )


def require_whole(path: Path) -> None:
    """Say what stands there, once SQLite has found it to be no store of ours. Never called on a store that is open in
    this process: to close a file is to lose every lock that the process has on it, SQLite's among them, and then
    another process takes the log away under our connections."""
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(b"SQLite format 3\x00") or head[68:72] != APPLICATION.to_bytes(4, "big"):
        if not head.strip(b"\x00"):
            raise damaged(path, f"its first {len(head)} bytes hold nothing")
        raise WrongUse(f"{path} is not a store of Bartizan; give [backend] uri another path")
