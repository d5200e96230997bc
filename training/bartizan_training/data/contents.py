"""What the files held that a run learns from, so that it goes on with nothing else under the same names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import stat_result
from pathlib import Path

from bartizan_connector.base.progress import progress
from bartizan_training.data.digests import PIECE, digest_of_files

_SHOWN = 200_000_000
"""Bytes; to read more takes so long that it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Of one file."""

    bytes: int
    sha256: str
    touched: int | None = field(default=None, compare=False)
    """When the file was written last, in nanoseconds since 1970; no part of what it holds."""


Contents = Mapping[Path, Content | None]
"""None: there is no such file."""


def readers_of(files: Iterable[tuple[int, Path]]) -> Mapping[Path, frozenset[int]]:
    """Each file, and the numbers of the steps that rest on it, out of the files of the steps."""
    readers: dict[Path, frozenset[int]] = {}
    for step, file in files:
        readers[file] = readers.get(file, frozenset()) | {step}
    return readers


def size_of(file: Path) -> int | None:
    """None: there is no such file."""
    return file.stat().st_size if file.is_file() else None


def contents_of(files: Iterable[Path], noted: Contents) -> dict[Path, Content | None]:
    """What the files hold now. Those whose size and time are as they were noted are not read."""
    found: dict[Path, Content | None] = {}
    unknown: dict[Path, stat_result] = {}
    for file in files:
        stat = file.stat() if file.is_file() else None
        then = noted.get(file)
        if stat is None or (then and (then.bytes, then.touched) == (stat.st_size, stat.st_mtime_ns)):
            found[file] = then if stat else None
        else:
            unknown[file] = stat
    return found | _read(unknown)


def _read(files: Mapping[Path, stat_result]) -> dict[Path, Content | None]:
    pieces = sum(-(-stat.st_size // PIECE) for stat in files.values())
    if pieces * PIECE <= _SHOWN:
        return {file: _content(file, stat, lambda: None) for file, stat in files.items()}
    with progress("reads the data, to know it again (MiB)", pieces) as tick:
        return {file: _content(file, stat, tick) for file, stat in files.items()}


def _content(file: Path, stat: stat_result, on_piece: Callable[[], None]) -> Content:
    """Its time is that from before it was read: what is written meanwhile is seen as touched."""
    return Content(bytes=stat.st_size, sha256=digest_of_files([file], on_piece), touched=stat.st_mtime_ns)
