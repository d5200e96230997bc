"""MemoryBackend: rows in a dictionary, searched exactly; the oracle that every other back-end is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Floats, SparseVector, Vectors
from bartizan_connector.store.checks import check_stored, checked_heads, checked_query, checked_rows
from bartizan_connector.store.collection import Collection, Head, Hit, Leg, Row
from bartizan_connector.store.exact import Positions, best, sparse_scores, top_k
from bartizan_connector.store.filters import Filter, matches


class MemoryBackend:
    """Collections that live as long as the object does. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._stores: dict[str, _Store] = {}
        self._chosen: _Store | None = None

    def ensure(self, collection: Collection, *, create: bool = True) -> None:
        with self._lock:
            store = self._stores.get(collection.name)
            if store:
                check_stored(store.collection, collection)
            elif create:
                store = self._stores[collection.name] = _Store(collection)
            else:
                raise WrongUse(f"there is no collection '{collection.name}' in this memory; ingest documents first")
            self._chosen = store

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._lock:
            known = self._store.heads
            return {id: known[id] for id in ids if id in known}

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._lock:
            store = self._store
            for document in checked_rows(store.collection, rows):
                store.rows[document.id] = document.rows
                store.heads[document.id] = document.head
            store.snapshot = None

    def touch(self, heads: Sequence[Head]) -> None:
        with self._lock:
            self._store.heads.update((head.id, head) for head in checked_heads(heads))

    def delete(self, heads: Sequence[Head]) -> None:
        with self._lock:
            store = self._store
            for head in checked_heads(heads):
                store.rows.pop(head.id, None)
                store.heads[head.id] = Head(id=head.id, version=head.version, hash=head.hash, deleted=True)
            store.snapshot = None

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        with self._lock:
            store = self._store
            chosen = checked_query(store.collection, leg, vectors, k, filter)
            if store.snapshot is None:
                store.snapshot = _Snapshot([row for rows in store.rows.values() for row in rows])
            snapshot = store.snapshot
        return snapshot.search(chosen, vectors, k, filter)

    def close(self) -> None:
        """Nothing to let go of: the collections stay until the object goes."""

    @property
    def _store(self) -> "_Store":
        if self._chosen is None:
            raise WrongUse("call ensure(collection) before anything else")
        return self._chosen


@dataclass(slots=True)
class _Store:
    """One collection."""

    collection: Collection
    rows: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    snapshot: "_Snapshot | None" = None
    """The rows as they are searched; None after a change."""


class _Snapshot:
    """The rows at one moment, in order of (id, chunk), so that position decides a tie. Never changed once made."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: (row.id, row.chunk))
        self._matrices: dict[str, Floats] = {}

    def search(self, leg: Leg, vectors: Vectors, k: int, filter: Filter | None) -> list[list[Hit]]:
        rows = self._rows
        if filter is not None:
            rows = [row for row in rows if matches(filter, {"id": row.id, **row.fields})]
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
