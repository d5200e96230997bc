"""Lists of different lengths as flat arrays, so that many are looked up at once without a Python loop."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def joined_ranges(starts: Indices, lengths: Indices) -> Indices:
    """The numbers start, start + 1 … of each range, one range after the other."""
    before = np.cumsum(lengths) - lengths
    joined: Indices = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return joined


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of whole numbers, one after the other."""

    flat: Indices
    starts: Indices
    lengths: Indices

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Self:
        """The rows as arrays."""
        arrays = [np.array(tuple(row), dtype=np.int64) for row in rows]
        lengths = np.array([len(row) for row in arrays], dtype=np.int64)
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *arrays])
        return cls(flat, np.cumsum(lengths) - lengths, lengths)

    def pick(self, indices: Indices) -> Self:
        """The rows of these numbers."""
        lengths = self.lengths[indices]
        flat = self.flat[joined_ranges(self.starts[indices], lengths)]
        return type(self)(flat, np.cumsum(lengths) - lengths, lengths)

    @property
    def owners(self) -> Indices:
        """The row of each number."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)
