"""Durable writing: a file or a folder is written aside, flushed to disk, then renamed in; nobody ever sees half of one.

1 write aside, in the target's own folder   2 fsync what was written   3 rename, or exchange with what stands there
4 fsync the folder that holds the name. After a loss of power the target is the old one or the new one, and whole.
"""

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

_EXCHANGE = 2
_HERE = -100
"""Linux: renameat2's flag that swaps two names, and its word for the working folder."""


@contextmanager
def folder_aside(target: Path, *, marker: str) -> Iterator[Path]:
    """A new folder to fill, which takes `target`'s place when the block ends, and vanishes when it raises.

    An existing target is replaced only when it is empty or holds `marker`, so that a mistyped path destroys nothing.
    """
    target = target.resolve()
    refuse_foreign(target, marker=marker)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with _locked(aside):
            try:
                fresh = aside / "new"
                fresh.mkdir()
                yield fresh
                sync_tree(fresh)
                _take_place(fresh, target)
                sync_folder(target.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def file_aside(target: Path) -> Iterator[Path]:
    """A path to write, whose file takes `target`'s place when the block ends, and vanishes when it raises."""
    if target.is_dir():
        raise WrongUse(f"{target} is a folder; give the file to write")
    if target.exists() and not target.is_file():  # a rename would put a file in its place
        raise WrongUse(f"{target} is a device or a pipe; give the file to write")
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            yield aside
            _sync(aside)
            aside.replace(target)
            sync_folder(target.parent)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def write_aside(target: Path, content: str | bytes) -> None:
    """Write a whole file at once."""
    with file_aside(target) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def refuse_foreign(target: Path, *, marker: str) -> None:
    """Refuse a target that holds something else than what would be written; called early, it saves the work."""
    if target.exists() and not target.is_dir():
        raise WrongUse(f"{target} is a file; give the folder to write")
    if target.exists() and not (target / marker).exists() and any(target.iterdir()):
        raise WrongUse(f"{target} is not empty and holds no {marker}; give a new folder")


def sync_tree(folder: Path) -> None:
    """Flush every file and every name in the folder to disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    _sync(folder)


def sweep(target: Path) -> None:
    """Take away what others who were killed have left aside of this target; what stood there when one of them was
    killed between two renames goes back. Whoever still writes holds a lock on what is his."""
    for aside in target.parent.glob(f".{glob.escape(target.name)}.*"):
        parts = {path.name for path in aside.iterdir()} if aside.is_dir() else set()
        if not parts or not parts <= {"new", "old"}:
            continue
        with _locked(aside) as is_ours:
            if not is_ours:
                continue
            if "old" in parts and not target.exists():
                (aside / "old").rename(target)
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, if nobody does; it goes with the process, however that ends."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another's, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_place(fresh: Path, target: Path) -> None:
    """By an exchange of two names where the system has one, so that something stands there at every moment."""
    if not target.exists():
        fresh.rename(target)
        return
    exchange = _exchange()
    if exchange is not None and exchange(fresh, target):
        return
    old = fresh.with_name("old")
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise


def _exchange() -> Callable[[Path, Path], bool] | None:
    """Swaps two names in one step; None where the system's library does not offer it."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return None

    def exchange(one: Path, other: Path) -> bool:
        return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)

    return exchange


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Stop(f"no space left for {target}; nothing was changed: free some and run again") from error
        raise Stop(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error
