"""What the files held that a run learns from, so that it goes on with nothing else under the same names."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bartizan_training.data.digests import digest_of_files

_OF_A_COLLECTION = ("corpus.jsonl", "queries.jsonl", "triples.tsv", "tokenizer.json", "qrels/*.tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Of one file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> "Content":
        """What the file holds now; it is read again only where it looks touched."""
        stat = file.stat()
        return _read(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)

    def is_in(self, file: Path) -> bool:
        """Whether the file holds that."""
        return file.stat().st_size == self.bytes and Content.of(file) == self


def readers_of(paths: Iterable[tuple[int, Path]]) -> Mapping[Path, frozenset[int]]:
    """Each file of data that is there, and the numbers of the steps that read it, out of the paths that steps name."""
    readers: dict[Path, frozenset[int]] = {}
    for step, path in paths:
        for file in _files(path):
            readers[file] = readers.get(file, frozenset()) | {step}
    return readers


@lru_cache(maxsize=1024)
def _read(file: Path, size: int, touched: int, inode: int) -> Content:
    return Content(bytes=size, sha256=digest_of_files([file]))


def _files(path: Path) -> Iterator[Path]:
    """The file, or those of a collection; a tower's are looked after by its identity."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for pattern in _OF_A_COLLECTION:
            yield from sorted(path.glob(pattern))
