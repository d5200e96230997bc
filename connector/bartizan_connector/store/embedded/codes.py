"""One byte a dimension beside dense vectors: which rows can be among the best, in a quarter of the memory's traffic.

A code says where its vector lies but for a distance that is measured for each row. So of two rows it can be proven
which one's product with a query is larger, wherever their codes are further apart than that; what cannot be proven is
compared by the vectors themselves. Nothing that is found this way depends on the codes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded.graph import asked, is_possible, library, one_thread
from bartizan_connector.store.embedded.rows import Numbers

FEWEST = 2_000
"""Rows; comparing fewer takes less than asking the codes."""
_MOST_ROWS = 100_000
"""They are copied with each commit that is seen; so many rows get a graph."""
_MOST = 127
_BLOCK = 4_096
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The codes of some rows, in their order; never changed once they are made."""

    index: Any
    scale: float
    """What a vector is multiplied by before it is rounded."""
    farthest: float
    """The longest way from a vector to what its code says."""
    longest: float
    """The length of the longest of what the codes say."""

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def best(self, query: Floats, count: int) -> tuple[Numbers, Doubles, float]:
        """The positions of the rows with the best codes, what the codes say of their products with the query, best
        first, and by how much the product of any row may be beside what its code says."""
        exact = query.astype(np.float64)
        scale = _MOST / (float(np.abs(query).max(initial=0.0)) or 1.0)
        scaled = exact * scale
        whole = np.rint(scaled)  # of whole numbers, as the library rounds a query for such codes by itself
        with one_thread():
            found, products = asked(self.index, whole.astype(np.float32), count, None)
        asks, rounds = _length(whole), _length(scaled - whole) / scale
        margin = self.farthest * _length(exact) + self.longest * (rounds + len(query) * 2.0**-24 * asks / scale)
        return found, products.astype(np.float64) / (self.scale * scale), margin


def _length(vector: Doubles) -> float:
    return math.sqrt(float(np.dot(vector, vector)))


class Coding:
    """Codes for rows that are appended, made once for each row."""

    def __init__(self) -> None:
        self._bytes: Bytes | None = None
        self._used = 0
        self._scale = 0.0
        self._farthest = 0.0
        self._longest = 0.0

    def codes(self, matrix: Floats) -> Codes | None:
        """Of all these rows, of which the first ones are those of the last call; None where it is not worth it."""
        if not FEWEST <= len(matrix) <= _MOST_ROWS or not is_possible():
            return None
        if self._bytes is None:
            peak = float(np.abs(matrix).max())
            if not 1e-30 < peak < 1e15:
                return None
            self._scale = _MOST / peak
        if self._bytes is None or len(self._bytes) < len(matrix):
            room = np.empty((len(matrix) + len(matrix) // 2, matrix.shape[1]), np.uint8)
            if self._bytes is not None:
                room[: self._used] = self._bytes[: self._used]
            self._bytes = room
        for start in range(self._used, len(matrix), _BLOCK):
            self._encode(matrix[start : start + _BLOCK], start)
        if not self._farthest < 1e15:
            self._used = len(matrix)  # it never gets nearer
            return None
        faiss = library()
        signed = faiss.ScalarQuantizer.QT_8bit_direct_signed
        index = faiss.IndexScalarQuantizer(matrix.shape[1], signed, faiss.METRIC_INNER_PRODUCT)
        index.add_sa_codes(self._bytes[: len(matrix)])
        self._used = len(matrix)  # only now: what fails before is done again, maybe for other rows
        return Codes(index, self._scale, self._farthest, self._longest)

    def _encode(self, some: Floats, start: int) -> None:
        """Numbers that are larger than those of the first rows are cut off, which the distance says."""
        assert self._bytes is not None
        with np.errstate(over="ignore"):
            rounded = np.clip(np.rint(some * np.float32(self._scale)), -_MOST, _MOST)
        self._bytes[start : start + len(some)] = rounded + (_MOST + 1)
        said = rounded.astype(np.float64) / self._scale
        self._farthest = max(
            self._farthest, float(np.linalg.norm(some.astype(np.float64) - said, axis=1).max(initial=0.0))
        )
        self._longest = max(self._longest, float(np.linalg.norm(said, axis=1).max(initial=0.0)))
