"""Vectors that know which space they belong to: dense or sparse, one or a batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse

Floats = npt.NDArray[np.float32]


class NotFinite(WrongUse):
    """A tower gave a vector with NaN or infinity in it."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """Weights of a few terms of a vocabulary: indices strictly rising, weights finite and above zero."""

    indices: npt.NDArray[np.int32]
    weights: Floats

    def __post_init__(self) -> None:
        if self.indices.ndim != 1 or self.indices.shape != self.weights.shape:
            raise WrongUse(
                f"a sparse vector needs as many weights as indices, got {self.weights.shape} and {self.indices.shape}"
            )
        if self.indices.size and (self.indices[0] < 0 or np.any(np.diff(self.indices) <= 0)):
            raise WrongUse("a sparse vector's indices must rise strictly from 0 or above")
        if not np.all(np.isfinite(self.weights)):
            raise NotFinite("a sparse vector's weights hold NaN or infinity; the tower is broken")
        if np.any(self.weights <= 0):
            raise WrongUse("a sparse vector's weights must be above zero; leave terms of weight zero out")


def sparse_rows(weights: Floats) -> tuple[SparseVector, ...]:
    """A row of weights [texts, vocabulary], zero for terms that a text lacks, as one sparse vector each."""
    rows, terms = np.nonzero(weights)
    ends = np.cumsum(np.count_nonzero(weights, axis=1))[:-1]
    found = weights[rows, terms].astype(np.float32, copy=False)
    each = zip(np.split(terms, ends), np.split(found, ends), strict=True) if len(weights) else ()
    return tuple(SparseVector(np.array(indices, dtype=np.int32), own.copy()) for indices, own in each)


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """One vector and its space."""

    space_id: str
    value: Floats | SparseVector


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Vectors:
    """A batch out of one tower: row i belongs to text i; what the tokenizer cut off is counted, never hidden."""

    space_id: str
    tower_id: str
    values: Floats | tuple[SparseVector, ...]
    """Dense: a matrix, one row a text. Sparse: one SparseVector a text."""
    tokens: tuple[int, ...]
    """Length of each text in tokens, before truncation."""
    truncated: tuple[bool, ...]
    degraded: str | None = None
    """Why it was not the tower that was meant to encode; None: it was."""

    def __post_init__(self) -> None:
        if isinstance(self.values, np.ndarray):
            if self.values.ndim != 2 or self.values.dtype != np.float32:
                raise WrongUse(f"expected a float32 matrix, got {self.values.dtype} of shape {self.values.shape}")
            if not np.isfinite(self.values).all():
                bad = np.flatnonzero(~np.isfinite(self.values).all(axis=1))
                raise NotFinite(f"the vectors of texts {bad[:5].tolist()} hold NaN or infinity; the tower is broken")
        if not len(self.values) == len(self.tokens) == len(self.truncated):
            raise WrongUse("a batch needs one vector, one token count and one truncation mark a text")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Vector:
        return Vector(self.space_id, self.values[index])

    def __iter__(self) -> Iterator[Vector]:
        return (self[index] for index in range(len(self)))
