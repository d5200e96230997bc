"""MilvusStore: one collection in a Milvus Lite file or on a Milvus server, opened by its physical name."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store import filters
from bartizan_connector.store.backend import IndexFacts
from bartizan_connector.store.checks import checked_leg, checked_query, replaced
from bartizan_connector.store.collection import Collection, Document, Head, Hit, Leg, Row
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.kinds import AUTO
from bartizan_connector.store.milvus.audit import MilvusAudit
from bartizan_connector.store.milvus.building import Building
from bartizan_connector.store.milvus.choices import Outcome, require_possible
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import render
from bartizan_connector.store.milvus.failures import is_missing, is_unloaded
from bartizan_connector.store.milvus.names import Names
from bartizan_connector.store.milvus.preparation import Prepared
from bartizan_connector.store.milvus.ranking import Search
from bartizan_connector.store.milvus.reading import Reader
from bartizan_connector.store.milvus.writing import Writer
from bartizan_connector.store.profiles import Profile
from bartizan_connector.store.recall import Exam, K

Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]

_EXAM = 10
"""So many times a call's deadline, for the many searches of a probe."""


class MilvusStore:
    """Safe to share between threads; writes take turns.

    A physical name is used once, so Milvus itself says when the collection is gone. Where 0.1.0 took the name itself,
    it is looked at again with every write and every search."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        prepared: Prepared,
        writer: Writer,
        consistency: Consistency,
        left: Callable[["MilvusStore"], None],
    ) -> None:
        self._connection = connection
        self._name = name
        self._prepared = prepared
        self.found = prepared.found
        self._writer = writer
        self.reader = Reader(connection, prepared)
        self._indexes = prepared.indexes
        self._consistency = consistency
        self._left = left
        self._names = Names(connection)
        self._is_closed = False
        self.collection: Collection = prepared.found.contract
        self.physical_name = prepared.found.physical
        self.remarks: Sequence[str] = self._indexes.remarks()

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._pinned():
            return self._writer.heads(ids)

    def claim(self, group: str = "") -> None:
        with self._writing():
            self._writer.claim(group)

    def renew(self) -> float:
        with self._writing():
            return self._writer.renew()

    @property
    def needs_seal(self) -> bool:
        return self._connection.file is None

    def seal(self) -> None:
        with self._pinned():
            self._writer.sealing.seal()

    def part(self, name: str) -> "MilvusPart":
        with self._writing():
            self._writer.take(name)
        return MilvusPart(self, name)

    def leave_part(self, name: str) -> None:
        with self._pinned():
            self._writer.leave_part(name)

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._writing():
            self._writer.upsert(rows)

    def touch(self, heads: Sequence[Head]) -> None:
        with self._writing():
            self._writer.touch(heads)

    def delete(self, heads: Sequence[Head]) -> None:
        with self._writing():
            self._writer.delete(heads)

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        chosen = checked_query(self.collection, leg, vectors, k, filter)
        deadline = time.monotonic() + (self._connection.timeout if timeout is None else timeout)
        search = Search(self._connection, self._prepared, chosen, self._consistency, self._rendered(filter))
        queries = {i: query for i, vector in enumerate(vectors) if (query := _query(vector.value)) is not None}
        with self._pinned():
            self._writer.flush_before_search()
            found = self._indexes.searched(lambda: search.run(list(queries.values()), k, deadline), deadline)
            self._require_unchanged()
        hits = dict(zip(queries, found, strict=True))
        return [hits.get(i, []) for i in range(len(vectors))]

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> Mapping[str, Document]:
        with self._pinned():
            return self.reader.get(ids, vectors)

    def scan(self, filter: Filter | None = None, *, vectors: bool = False) -> Iterator[Document]:
        with self._pinned():
            yield from self.reader.scan(self._rendered(filter), vectors)

    def count(self, filter: Filter | None = None) -> int:
        with self._pinned():
            counted = self.reader.count(self._rendered(filter))
            self._require_unchanged()
        return counted

    def purge(self, before: int, since: int = 0) -> int:
        with self._writing():
            return self._writer.purge(before, since)

    def reindex(self) -> None:
        """Searches through this back-end wait until it is done; those of others are told to come again."""
        self._built({leg.name: self._indexes.wanted(leg) for leg in self.collection.legs})

    def indexes(self) -> Sequence[IndexFacts]:
        with self._pinned():
            return [self._facts(leg) for leg in self.collection.legs]

    def build(
        self, leg: str, profile: Profile | None = None, *, on_rows: Callable[[int, int], None] | None = None
    ) -> IndexFacts:
        chosen = checked_leg(self.collection, leg)
        if profile is not None:
            require_possible(profile, chosen, in_file=self._connection.file is not None)
        wanted = self._indexes.wanted(chosen) if profile is None or profile.kind == AUTO else profile
        self._indexes.require_harmless(chosen, wanted)
        self._built({leg: wanted}, on_rows)
        return self._facts(chosen)

    def vectors(self, leg: str) -> Iterator[tuple[list[tuple[str, int]], Sequence[Vector]]]:
        with self._pinned():
            yield from self.reader.vectors(checked_leg(self.collection, leg))

    def sample(self, leg: str, count: int, dice: np.random.Generator) -> Sequence[Vector]:
        with self._pinned():
            return self.reader.sample(checked_leg(self.collection, leg), count, dice)

    def audit(self) -> MilvusAudit:
        """Everything that stands there, for verification."""
        return MilvusAudit(self._prepared, self.reader, self._writer)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._writer.leave()
        finally:
            self._left(self)

    def _built(self, orders: Mapping[str, Profile], on_rows: Callable[[int, int], None] | None = None) -> None:
        """Searches wait while the indexes are taken away, and are answered while they are built; writes wait for the
        first only."""
        building = Building(self._indexes, lambda leg: Exam.of(self, leg.name), self._now_searched)
        with self._indexes.building:
            with self._writing():
                self._writer.flush()
                building.begin(orders)
            for leg, profile in orders.items():
                with self._pinned():
                    building.finish(self.collection.leg(leg), profile, on_rows)
            self.remarks = self._indexes.remarks()

    def _now_searched(self, leg: Leg, vectors: Vectors, k: int) -> list[list[Hit]]:
        """All that was written before counts, whatever searches are asked to see."""
        search = Search(self._connection, self._prepared, leg, "Strong", "")
        queries = {i: query for i, vector in enumerate(vectors) if (query := _query(vector.value)) is not None}
        deadline = time.monotonic() + _EXAM * self._connection.timeout
        found = self._indexes.searched(lambda: search.run(list(queries.values()), k, deadline), deadline)
        hits = dict(zip(queries, found, strict=True))
        return [hits.get(i, []) for i in range(len(vectors))]

    def _facts(self, leg: Leg) -> IndexFacts:
        standing = self._indexes.standing(leg.name)
        outcome = standing.outcome if standing.is_of_outcome else Outcome()
        rows = self.reader.count("")
        covered, _, _ = standing.counts
        return IndexFacts(
            leg=leg.name,
            kind=standing.name.lower() or "none",
            state=standing.state,
            rows=rows,
            indexed=rows if self._connection.file else min(rows, covered),
            build=standing.build,
            search=standing.search(self._indexes.wanted(leg), K),
            recall=outcome.recall,
            note=outcome.note,
        )

    def _rendered(self, filter: Filter | None) -> str:
        if filter is None:
            return ""
        filters.check(filter, self.collection)
        return render(filter, self.collection)

    @contextmanager
    def _pinned(self) -> Iterator[None]:
        """What happens inside happens to the collection that was opened, or is refused."""
        if self._is_closed:
            raise WrongUse(f"this store of collection '{self._name}' was closed; open the collection again")
        self._writer.require_sight()
        try:
            yield
        except Retry as error:
            if is_unloaded(error):
                self._indexes.reloading.missed()
            self._writer.sealing.met(error)
            raise
        except Stop as error:
            if is_missing(error):
                raise self._replaced() from error
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._pinned(), self._writer.lock:
            self._require_unchanged()
            yield

    def _require_unchanged(self) -> None:
        if not self.found.is_unique and self._names.find(self.found.physical) != self.found:
            raise self._replaced()

    def _replaced(self) -> Stop:
        now = self._names.find(self._name)
        return replaced(self.collection, now.contract if now else None, self._connection.place)


class MilvusPart:
    """What is written here is written for one part of the ids, by the one who writes for it."""

    def __init__(self, store: MilvusStore, name: str) -> None:
        self._store = store
        self._name = name

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._store._writing():
            return self._store._writer.heads_for(self._name, ids)

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._store._writing():
            self._store._writer.upsert(rows, self._name)

    def touch(self, heads: Sequence[Head]) -> None:
        with self._store._writing():
            self._store._writer.touch(heads, self._name)

    def delete(self, heads: Sequence[Head]) -> None:
        with self._store._writing():
            self._store._writer.delete(heads, self._name)


def _query(value: Any) -> Any:
    """The vector as Milvus takes it; None where nothing can be found."""
    if not isinstance(value, SparseVector):
        return value
    return dict(zip(value.indices.tolist(), value.weights.tolist(), strict=True)) or None
