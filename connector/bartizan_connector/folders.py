"""Folders that others read: written aside, then renamed in, so that nobody ever sees half of one."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bartizan_connector.errors import Stop, WrongUse
from bartizan_connector.spec import SPEC_FILE


@contextmanager
def written_aside(target: Path, *, marker: str = SPEC_FILE) -> Iterator[Path]:
    """A new folder to fill, which takes `target`'s place when the block ends, and vanishes when it raises.

    An existing target is replaced only when it is empty or holds `marker`, so that a mistyped path destroys nothing.
    """
    target = target.resolve()
    refuse_foreign(target, marker=marker)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _explained(target, error) from error
    try:
        fresh = aside / "new"
        fresh.mkdir()
        yield fresh
        _take_place(fresh, target, aside / "old")
    except OSError as error:
        raise _explained(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_foreign(target: Path, *, marker: str = SPEC_FILE) -> None:
    """Refuse a target that holds something else than what would be written; called early, it saves the work."""
    if target.exists() and not target.is_dir():
        raise WrongUse(f"{target} is a file; give the folder to write")
    if target.exists() and not (target / marker).exists() and any(target.iterdir()):
        raise WrongUse(f"{target} is not empty and holds no {marker}; give a new folder")


def _take_place(fresh: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _explained(target: Path, error: OSError) -> Stop:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Stop(f"no space left for {target}; nothing was changed: free some and run again")
    return Stop(f"cannot write {target}: {error.strerror or error}; nothing was changed")
