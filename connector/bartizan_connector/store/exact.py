"""Exact search by inner product: the slow, simple answer that every index is measured against.

A matrix product's last bit depends on where a row stands in the matrix, so equal documents would not tie. It only picks
the candidates here; their scores are then summed in float64, row by row, and rounded once.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Floats, SparseVector

Positions = npt.NDArray[np.int64]

_BLOCK_SCORES = 1 << 24
"""Scores held at once: 64 MiB."""
_FLOAT32_ROUNDING = 2.0**-24
_FLOAT32_LEAST = 2.0**-148
"""Twice the smallest number of float32: by so much a product may be off that is nearly nothing."""
_LEAST_SQUARE = 1e-30
"""Sums of squares below it may have lost digits, or all, as float32."""
_OVERFLOWS = 2.0**105
"""A smaller slack says that the lengths of the two vectors, multiplied, are below 2^127: their product, and each sum on
the way to it, is such as float32 holds."""


def top_k(queries: Floats, documents: Floats, k: int) -> tuple[Positions, Floats]:
    """Positions and scores of the k documents with the largest inner product for each query: two matrices of
    min(k, documents) columns, best first, ties in order of position."""
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise WrongUse(f"expected two matrices of equal width, got shapes {queries.shape} and {documents.shape}")
    count = min(_positive(k), len(documents))
    positions = np.empty((len(queries), count), dtype=np.int64)
    scores = np.empty((len(queries), count), dtype=np.float32)
    if count == 0:
        return positions, scores
    longest = longest_of(documents)
    block = max(1, _BLOCK_SCORES // len(documents))
    for start in range(0, len(queries), block):
        with np.errstate(over="ignore", invalid="ignore"):
            approximate = queries[start : start + block] @ documents.T
        for row, query in enumerate(queries[start : start + block]):
            candidates = near_best(approximate[row], count, slack_of(query, longest))
            exact = (documents[candidates].astype(np.float64) * query).sum(axis=1)
            chosen, scores[start + row] = best(exact, count)
            positions[start + row] = candidates[chosen]
    return positions, scores


def longest_of(matrix: Floats) -> float:
    """The length of the longest row, however large or small its numbers are."""
    with np.errstate(over="ignore"):
        most = float(np.einsum("nd,nd->n", matrix, matrix).max())
    if _LEAST_SQUARE < most < math.inf:
        return math.sqrt(most)
    return float(np.linalg.norm(matrix.astype(np.float64), axis=1).max())


def slack_of(query: Floats, longest: float) -> float:
    """Four times what a product in float32 may be beside the true one, if it does not overflow."""
    exact = query.astype(np.float64)
    relative = _FLOAT32_ROUNDING * longest * math.sqrt(float(np.dot(exact, exact)))
    return 4 * len(query) * relative + len(query) * _FLOAT32_LEAST


def may_overflow(slack: float) -> bool:
    """Whether products with that slack may have left what float32 can hold; such a one says nothing of the true one."""
    return not slack < _OVERFLOWS


def near_best(approximate: Floats, k: int, slack: float) -> Positions:
    """The positions that may be among the k best, with all whose products have left what float32 can hold.

    One slack below the k-th product is far enough: half of it is for that product and the row's own, each of which may
    be beside the true one; the rest for scores that are equal only once they are rounded."""
    if may_overflow(slack):
        return _near_best_known(approximate, k, slack)
    least = float(np.partition(approximate, len(approximate) - k)[len(approximate) - k]) - slack
    return np.flatnonzero(~(approximate < least))


def _near_best_known(approximate: Floats, k: int, slack: float) -> Positions:
    """The same, where the k-th is one of those that are known."""
    unknown = ~np.isfinite(approximate)
    known = np.where(unknown, math.inf, approximate.astype(np.float64))
    place = len(known) - k - int(np.count_nonzero(unknown))
    if place < 0:
        return np.arange(len(known))
    return np.flatnonzero(known >= np.partition(known, place)[place] - slack)


class SparseTable:
    """Sparse vectors laid end to end, for one query after the other."""

    def __init__(self, documents: Sequence[SparseVector]) -> None:
        self._count = len(documents)
        self._owner = np.repeat(np.arange(self._count), [len(document.indices) for document in documents])
        empty = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
        self._terms = np.concatenate([document.indices for document in documents] or empty[0])
        values = np.concatenate([document.weights for document in documents] or empty[1])
        self._values = values.astype(np.float64)

    def scores(self, query: SparseVector, dim: int) -> npt.NDArray[np.float64]:
        """The inner product of the query with each."""
        weights = np.zeros(dim)
        weights[query.indices] = query.weights
        products = weights[self._terms] * self._values
        return np.bincount(self._owner, weights=products, minlength=self._count).astype(np.float64)


def sparse_scores(query: SparseVector, documents: Sequence[SparseVector], dim: int) -> npt.NDArray[np.float64]:
    """The inner product of one sparse query with each document."""
    return SparseTable(documents).scores(query, dim)


def best(scores: npt.NDArray[np.float64], k: int) -> tuple[Positions, Floats]:
    """Positions and scores of the k largest, best first, ties in order of position."""
    with np.errstate(over="ignore"):
        rounded = scores.astype(np.float32)
    order = np.argsort(-rounded, kind="stable")[: _positive(k)]
    return order.astype(np.int64), rounded[order]


def _positive(k: int) -> int:
    if k < 1:
        raise WrongUse(f"k = {k}: ask for at least one result")
    return k
