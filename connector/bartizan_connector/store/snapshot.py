"""A snapshot of rows: what a collection held at one moment, searched exactly."""

from collections.abc import Sequence

import numpy as np

from bartizan_connector.space.vectors import Floats, SparseVector, Vectors
from bartizan_connector.store.collection import Hit, Leg, Row
from bartizan_connector.store.exact import Positions, best, sparse_scores, top_k
from bartizan_connector.store.filters import Filter, matches


class Snapshot:
    """The rows at one moment, in order of (id, chunk), so that position decides a tie. Never changed once made."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: (row.id, row.chunk))
        self._matrices: dict[str, Floats] = {}

    def search(self, leg: Leg, vectors: Vectors, k: int, filter: Filter | None) -> list[list[Hit]]:
        rows = self._rows
        if filter is not None:
            rows = [row for row in rows if matches(filter, {"id": row.id, "chunk": row.chunk, **row.fields})]
        if isinstance(vectors.values, np.ndarray):
            found = self._dense(leg, rows, vectors.values, k)
        else:
            stored = [_sparse(row, leg.name) for row in rows]
            found = [_overlapping(query, stored, leg.dim, k) for query in vectors.values]
        return [
            [_hit(rows[position], score) for position, score in zip(positions, scores, strict=True)]
            for positions, scores in found
        ]

    def _dense(self, leg: Leg, rows: Sequence[Row], queries: Floats, k: int) -> list[tuple[Positions, Floats]]:
        whole = rows is self._rows
        matrix = self._matrices.get(leg.name) if whole else None
        if matrix is None:
            matrix = np.array([row.vectors[leg.name].value for row in rows], np.float32).reshape(-1, leg.dim)
        if whole:
            self._matrices[leg.name] = matrix
        return list(zip(*top_k(queries, matrix, k), strict=True))


def _overlapping(query: SparseVector, stored: Sequence[SparseVector], dim: int, k: int) -> tuple[Positions, Floats]:
    """A row that shares no term with the query is no result."""
    positions, scores = best(sparse_scores(query, stored, dim), k)
    shared = scores > 0
    return positions[shared], scores[shared]


def _sparse(row: Row, leg: str) -> SparseVector:
    value = row.vectors[leg].value
    assert isinstance(value, SparseVector)
    return value


def _hit(row: Row, score: float) -> Hit:
    return Hit(id=row.id, chunk=row.chunk, score=float(score), fields=dict(row.fields))
