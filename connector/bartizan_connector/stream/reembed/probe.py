"""A recall probe: what an index finds of stored vectors, beside what an exact search over a scan finds."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from bartizan_connector.space.vectors import Floats, SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.store.exact import sparse_scores

_AMONG = 20_000
"""Documents among which the probe's queries are drawn."""
_BLOCK = 2_000
_ROUNDING = 1e-3
"""Share of a score by which engines differ that sum in another order, or in fewer bits."""


def recall(store: Store, leg: str, *, queries: int = 50, k: int = 10, seed: int = 0) -> float | None:
    """The share of the k best that the index finds, for stored vectors as queries; None where nothing is stored. A hit
    counts when it is as near as the k-th of the exact search, so that ties and what was written meanwhile count."""
    drawn = _drawn(islice(_vectors(store, leg), _AMONG), queries, random.Random(seed))
    if not drawn:
        return None
    least = _kth(store, leg, drawn, k)
    found = store.search(leg, _batch(drawn), k)
    shares = []
    for hits, (score, there) in zip(found, least, strict=True):
        good = sum(hit.score >= score - _ROUNDING * max(1.0, abs(score)) for hit in hits)
        shares.append(min(1.0, good / there) if there else 1.0)
    return float(np.mean(shares))


def _vectors(store: Store, leg: str) -> Iterator[Vector]:
    for document in store.scan(vectors=True):
        for row in document.rows:
            if leg in row.vectors:
                yield row.vectors[leg]


def _drawn(vectors: Iterator[Vector], count: int, dice: random.Random) -> list[Vector]:
    """Each with the same chance (a reservoir); a sparse one without terms finds nothing, and is none."""
    drawn: list[Vector] = []
    seen = 0
    for vector in vectors:
        if isinstance(vector.value, SparseVector) and not vector.value.indices.size:
            continue
        seen += 1
        if len(drawn) < count:
            drawn.append(vector)
        elif (place := dice.randrange(seen)) < count:
            drawn[place] = vector
    return drawn


def _kth(store: Store, leg: str, queries: Sequence[Vector], k: int) -> list[tuple[float, int]]:
    """For each query the score of the k-th best of all that is stored, and how many there are up to it."""
    best: list[Floats] = [np.empty(0, dtype=np.float32) for _ in queries]
    vectors = _vectors(store, leg)
    while block := list(islice(vectors, _BLOCK)):
        for number, scores in enumerate(_scores(queries, block, store.collection.leg(leg).dim)):
            best[number] = np.sort(np.concatenate([best[number], scores]))[::-1][:k]
    return [(float(each[-1]), len(each)) if len(each) else (0.0, 0) for each in best]


def _scores(queries: Sequence[Vector], block: Sequence[Vector], dim: int) -> Iterator[Floats]:
    """Of each query with each vector that it can find."""
    sparse = [vector.value for vector in block if isinstance(vector.value, SparseVector)]
    dense = [vector.value for vector in block if not isinstance(vector.value, SparseVector)]
    matrix = np.stack(dense) if dense else np.empty((0, dim), dtype=np.float32)
    for query in queries:
        if isinstance(query.value, SparseVector):
            scores = sparse_scores(query.value, sparse, dim)
            yield scores[scores > 0].astype(np.float32)
        else:
            yield matrix @ query.value


def _batch(vectors: Sequence[Vector]) -> Vectors:
    sparse = tuple(vector.value for vector in vectors if isinstance(vector.value, SparseVector))
    dense = [vector.value for vector in vectors if not isinstance(vector.value, SparseVector)]
    return Vectors(
        space_id=vectors[0].space_id,
        tower_id="stored",
        values=sparse or np.stack(dense),
        tokens=(1,) * len(vectors),
        truncated=(False,) * len(vectors),
    )
