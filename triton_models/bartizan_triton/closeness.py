"""How close an export's vector is to the tower's: for dense vectors and for sparse ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats, SparseVector

Value = Floats | SparseVector


@dataclass(frozen=True, slots=True)
class Closeness:
    """One vector beside its reference. Not a number counts as the worst."""

    difference: float
    cosine: float
    drift: float
    """Difference from the same text's vector in another batch."""
    terms: float = 0.0
    """Sparse: the largest weight of a term that only one of the two has, beside the largest weight of all."""


def measured(expected: Value, came: Value, before: Value) -> Closeness:
    """`came` beside torch's vector, and beside its own of an earlier batch; scaled to the length of torch's."""
    if isinstance(expected, SparseVector) and isinstance(came, SparseVector) and isinstance(before, SparseVector):
        terms = np.unique(np.concatenate([each.indices for each in (expected, came, before)]))
        one, other, earlier = (_over(terms, each) for each in (expected, came, before))
        dense = _measured(one, other, earlier)
        alone = np.where((one > 0) != (other > 0), np.maximum(one, other), 0)
        largest = float(max(one.max(initial=0.0), other.max(initial=0.0))) or 1.0
        both_empty = not one.any() and not other.any()
        return Closeness(
            dense.difference,
            1.0 if both_empty else dense.cosine,
            dense.drift,
            float(alone.max(initial=0.0)) / largest,
        )
    assert isinstance(expected, np.ndarray)
    assert isinstance(came, np.ndarray)
    assert isinstance(before, np.ndarray)
    return _measured(expected, came, before)


def scores_differ(pairs: Sequence[tuple[SparseVector, SparseVector]]) -> float:
    """The largest difference of any two texts' dot product between torch and the export, beside the product of the
    texts' lengths in torch."""
    terms = np.unique(np.concatenate([vector.indices for pair in pairs for vector in pair]))
    expected, came = (np.stack([_over(terms, pair[side]) for pair in pairs]).astype(np.float64) for side in (0, 1))
    lengths = np.linalg.norm(expected, axis=1)
    scale = np.outer(lengths, lengths)
    return float((np.abs(expected @ expected.T - came @ came.T) / np.where(scale > 0, scale, 1.0)).max(initial=0.0))


def _measured(expected: Floats, came: Floats, before: Floats) -> Closeness:
    length = float(np.linalg.norm(expected)) or 1.0
    size = float(np.linalg.norm(came)) or 1.0
    difference = float(np.abs(came - expected).max(initial=0.0)) / length
    drift = float(np.abs(came - before).max(initial=0.0)) / length
    return Closeness(difference, float(expected @ came) / (length * size), drift)


def _over(terms: npt.NDArray[np.int32], vector: SparseVector) -> Floats:
    """The weights of these terms, zero where the vector lacks one."""
    weights = np.zeros(len(terms), dtype=np.float32)
    weights[np.searchsorted(terms, vector.indices)] = vector.weights
    return weights
