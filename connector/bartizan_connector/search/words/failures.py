"""What Tantivy's errors mean; it reports everything as ValueError."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bartizan_connector.base.errors import BartizanError, Retry, Stop


@contextmanager
def calling(folder: Path) -> Iterator[None]:
    """Translate what is raised inside."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise _meaning(error, f"the word index in {folder}") from error


def _meaning(error: ValueError | OSError, place: str) -> BartizanError:
    told = str(error)
    if "LockBusy" in told:
        return Retry(f"{place} is being written by another process; wait until it has ended", after=2.0)
    if _is_full(error):
        return Stop(f"{place} has no room to write: {told}. Make room and run again: what was stored is kept")
    if isinstance(error, OSError):
        return Stop(f"{place} cannot be used: {error.strerror or error}")
    return Stop(
        f"{place} cannot be used: {told}; if it is damaged or from another version, set [backend] lexical to a new "
        "folder and ingest again"
    )


def _is_full(error: ValueError | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(words in str(error).lower() for words in ("no space left", "file too large", "quota exceeded"))
