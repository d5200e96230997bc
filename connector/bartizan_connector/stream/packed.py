"""A file of lines opened by its name: as it is, or unpacked on the way (`.gz`, `.zst`)."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from bartizan_connector.base.errors import missing_extra

PACKED = (".gz", ".zst")
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
"""What reading raises where the file cannot be read, or cannot be unpacked to its end."""


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file's lines in bytes, with `tell` and `fileno` (the packed file's) as a plain file has them."""
    with path.open("rb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(BinaryIO, stream)
        elif path.suffix == ".zst":
            with io.BufferedReader(_Zst(file)) as stream:
                yield cast(BinaryIO, stream)
        else:
            yield file


class _Zst(io.RawIOBase):
    """Zstandard, unpacked by pyarrow: this Python has nothing for it."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow
        except ImportError as error:
            raise missing_extra("pyarrow", "data") from error
        self._file = file
        self._stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd")
        self._done = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._done

    def readinto(self, into: Any) -> int:
        read = self._stream.read(len(into))
        into[: len(read)] = read
        self._done += len(read)
        return len(read)
