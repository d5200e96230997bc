"""A recall probe: what an index finds of stored vectors, beside what an exact search over a scan finds."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from bartizan_connector.space.vectors import Floats, SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head
from bartizan_connector.store.exact import sparse_scores

_AMONG = 20_000
"""Documents among which the probe's queries are drawn."""
_BLOCK = 2_000
_ROUNDING = 1e-3
"""Share of a score by which engines differ that sum in another order, or in fewer bits."""


def recall(store: Store, leg: str, *, queries: int = 50, k: int = 10, seed: int = 0) -> float | None:
    """The share of the k best that the index finds, for stored vectors as queries; None where nothing is stored. A hit
    counts when it is as near as the last of the exact search, so that ties count; a document that was changed between
    the two searches is no matter of either."""
    drawn = _drawn((vector for _, vector in islice(_vectors(store, leg), _AMONG)), queries, random.Random(seed))
    if not drawn:
        return None
    best = _exact(store, leg, drawn, k)
    found = store.search(leg, _batch(drawn), k)
    after = store.heads(sorted({head.id for each in best for _, head in each}))
    shares = []
    for hits, each in zip(found, best, strict=True):
        kept = [score for score, head in each if after.get(head.id) == head]
        good = sum(hit.score >= min(kept) - _ROUNDING * max(1.0, abs(min(kept))) for hit in hits) if kept else 0
        shares.append(min(1.0, good / len(kept)) if kept else 1.0)
    return float(np.mean(shares))


def _vectors(store: Store, leg: str) -> Iterator[tuple[Head, Vector]]:
    for document in store.scan(vectors=True):
        for row in document.rows:
            if leg in row.vectors:
                yield document.head, row.vectors[leg]


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


def _exact(store: Store, leg: str, queries: Sequence[Vector], k: int) -> list[list[tuple[float, Head]]]:
    """For each query the scores of the k best of all that is stored, with the heads of their documents."""
    best: list[list[tuple[float, Head]]] = [[] for _ in queries]
    vectors, dim = _vectors(store, leg), store.collection.leg(leg).dim
    while block := list(islice(vectors, _BLOCK)):
        for number, scores in enumerate(_scores(queries, [vector for _, vector in block], dim)):
            first = [int(each) for each in np.argsort(-scores, kind="stable")[:k] if scores[each] > -np.inf]
            fresh = [(float(scores[each]), block[each][0]) for each in first]
            best[number] = sorted([*best[number], *fresh], key=lambda pair: -pair[0])[:k]
    return best


def _scores(queries: Sequence[Vector], block: Sequence[Vector], dim: int) -> Iterator[Floats]:
    """Of each query with each vector; of one that it cannot find, minus infinity."""
    sparse = [vector.value for vector in block if isinstance(vector.value, SparseVector)]
    dense = [vector.value for vector in block if not isinstance(vector.value, SparseVector)]
    matrix = np.stack(dense) if dense else np.empty((0, dim), dtype=np.float32)
    for query in queries:
        if isinstance(query.value, SparseVector):
            scores = sparse_scores(query.value, sparse, dim)
            yield np.where(scores > 0, scores, -np.inf).astype(np.float32)
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
