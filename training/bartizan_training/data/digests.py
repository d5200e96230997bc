"""Texts and pairs of texts as 64-bit numbers, so that what was computed for them is found again in whatever order."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse

Digests = npt.NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)
PIECE = 1 << 20


def digests_of(texts: Iterable[str]) -> Digests:
    """One number a text."""
    return np.fromiter((_digest(text) for text in texts), dtype=np.uint64)


def pair_digests(first: Digests, second: Digests) -> Digests:
    """One number a pair; (a, b) and (b, a) differ."""
    turned = (first << np.uint64(17)) | (first >> np.uint64(47))
    mixed: Digests = (turned * _MIX) ^ second  # wraps around, as it should
    mixed ^= mixed >> np.uint64(29)
    return mixed * _MIX


def digest_of_files(paths: Iterable[Path], on_piece: Callable[[], None] = lambda: None) -> str:
    """Identity of the content of some files, in their order; `on_piece` hears of each `PIECE` bytes that are read."""
    digest = hashlib.sha256()
    for path in paths:
        for piece in _pieces(path):
            digest.update(piece)
            on_piece()
        digest.update(b"\0")
    return digest.hexdigest()


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}") from error
