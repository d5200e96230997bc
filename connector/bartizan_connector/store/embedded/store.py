"""EmbeddedStore: one collection of an embedded store, opened."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import NoReturn

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Vector, Vectors
from bartizan_connector.store import filters
from bartizan_connector.store.backend import IndexFacts
from bartizan_connector.store.checks import checked_heads, checked_leg, checked_query, checked_rows, replaced
from bartizan_connector.store.collection import Document, Head, Hit, Leg, Row
from bartizan_connector.store.embedded import rows
from bartizan_connector.store.embedded.allowed import Allowed
from bartizan_connector.store.embedded.audit import EmbeddedAudit
from bartizan_connector.store.embedded.building import Builder
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.dense import DenseIndex
from bartizan_connector.store.embedded.filters_sql import condition
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.lease import Lease
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.embedded.rows import Moment
from bartizan_connector.store.embedded.sparse import SparseIndex
from bartizan_connector.store.embedded.words import WordIndex
from bartizan_connector.store.embedded.writing import Writing
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.kinds import AUTO
from bartizan_connector.store.profiles import Profile


class EmbeddedStore:
    """Reads see one moment; writes are one transaction each, and are seen by every process at once."""

    writes_whole = True

    def __init__(
        self, place: Place, layout: Layout, lease: Lease, *, kinds: Mapping[str, str], closed: Callable[[], None]
    ) -> None:
        self._place = place
        self._layout = layout
        self._lease = lease
        self._closed = closed
        self._is_closed = False
        self._wrote = False
        self.collection = layout.collection
        self.physical_name = layout.physical
        self._what = f"collection '{layout.collection.name}' in {place.path}"
        self._locks = {leg.name: Lock() for leg in self.collection.legs}
        self._allowed = Allowed(layout)
        dense = [leg for leg in self.collection.legs if leg.kind == "dense"]
        self._builders = {leg.name: Builder(place, layout, leg, kinds[leg.name]) for leg in dense}
        self._dense = {leg.name: DenseIndex(place, layout, leg, self._builders[leg.name]) for leg in dense}
        self._sparse = {leg.name: SparseIndex(layout, leg) for leg in self.collection.legs if leg.kind == "sparse"}
        self.words: EmbeddedWords | None = EmbeddedWords(self) if layout.worded else None
        """The lexical leg over title and text; every write of rows is one of words too."""

    @property
    def remarks(self) -> Sequence[str]:
        return [remark for builder in self._builders.values() for remark in builder.remarks]

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._reading() as (connection, _):
            return rows.heads(connection, self._layout, ids)

    def claim(self, group: str = "") -> None:
        with self._writing(True):
            """A transaction that changes nothing but the holder's line."""

    def renew(self) -> float:
        self.claim()
        return self._lease.renewal

    def upsert(self, rows: Sequence[Row]) -> None:
        documents = checked_rows(self.collection, rows)
        with self._writing(bool(documents)) as writing:
            writing.upsert(documents)

    def touch(self, heads: Sequence[Head]) -> None:
        heads = checked_heads(heads)
        with self._writing(bool(heads)) as writing:
            writing.remember(heads)

    def delete(self, heads: Sequence[Head]) -> None:
        heads = checked_heads(heads)
        with self._writing(bool(heads)) as writing:
            writing.delete(heads)

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
        deadline = self._deadline(timeout)
        with self._place.reading() as connection, deadline.over(connection):
            with deadline.holding(self._locks[leg]):  # the moment is taken inside, so that no index is ever ahead of it
                now = self._now(connection)
                dense = self._dense[leg].view(connection, now, deadline) if chosen.kind == "dense" else None
                sparse = self._sparse[leg].view(connection, now, deadline) if dense is None else None
            allowed = None if filter is None else self._allowed.passing(connection, now, filter)
            if isinstance(vectors.values, np.ndarray):
                assert dense is not None
                return self._dense[leg].search(connection, dense, vectors.values, k, allowed, deadline)
            assert sparse is not None
            return self._sparse[leg].search(connection, sparse, vectors.values, k, allowed, deadline)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> Mapping[str, Document]:
        with self._reading() as (connection, _):
            return rows.documents(connection, self._layout, ids, vectors=vectors)

    def scan(self, filter: Filter | None = None, *, vectors: bool = False) -> Iterator[Document]:
        self._checked(filter)
        return self._scanned(filter, vectors)

    def count(self, filter: Filter | None = None) -> int:
        self._checked(filter)
        with self._reading() as (connection, _):
            return rows.count(connection, self._layout, condition(filter, self._layout))

    def purge(self, before: int, since: int = 0) -> int:
        with self._writing(True) as writing:
            return writing.purge(before, since)

    def reindex(self) -> None:
        for builder in self._builders.values():
            builder.anew()

    def indexes(self) -> Sequence[IndexFacts]:
        with self._reading() as (connection, now):
            count = rows.count(connection, self._layout, condition(None, self._layout))
        return [self._facts(leg, count, now) for leg in self.collection.legs]

    def build(
        self, leg: str, profile: Profile | None = None, *, on_rows: Callable[[int, int], None] | None = None
    ) -> IndexFacts:
        chosen = checked_leg(self.collection, leg)
        kind = profile.kind if profile is not None else AUTO
        if kind not in (AUTO, "hnsw") or (profile is not None and not profile.is_bare):
            raise WrongUse(
                f"the embedded store builds no index as {profile} asks: it has auto and hnsw, without parameters; "
                '[backend] index = "flat" compares every row instead'
            )
        if chosen.kind == "dense":
            self._builders[leg].anew(early=kind == "hnsw", on_rows=on_rows)
        with self._reading() as (connection, now):
            count = rows.count(connection, self._layout, condition(None, self._layout))
        return self._facts(chosen, count, now)

    def vectors(self, leg: str) -> Iterator[tuple[list[tuple[str, int]], Sequence[Vector]]]:
        chosen, after = checked_leg(self.collection, leg), 0
        while True:
            with self._reading() as (connection, _):
                page = rows.page_of_vectors(connection, self._layout, chosen, after)
            if not page:
                return
            yield [(id, chunk) for _, id, chunk, _ in page], [vector for *_, vector in page]
            after = page[-1][0]

    def sample(self, leg: str, count: int, dice: np.random.Generator) -> None:
        """Reading all is as quick."""

    def let_others_write(self) -> None:
        self._lease.give_back(self._place, self.physical_name)

    def audit(self) -> EmbeddedAudit:
        """Everything that stands there, for verification."""
        return EmbeddedAudit(self._layout, self._at_a_moment, self._take_away)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            for builder in self._builders.values() if self._wrote else ():
                builder.finish()  # what the next process can load
        finally:
            for builder in self._builders.values():
                builder.close()
            for index in self._sparse.values():
                index.close()
            if self.words is not None:
                self.words.close()
            self._closed()

    def _facts(self, leg: Leg, count: int, now: Moment) -> IndexFacts:
        if leg.kind == "sparse":  # postings that every search brings up to date
            return IndexFacts(
                leg=leg.name, kind="postings", state="finished", rows=count, indexed=count, recall=1.0,
                sequence=now.sequence,
            )  # fmt: skip
        graph = self._builders[leg.name].standing()
        if graph is None:
            return IndexFacts(
                leg=leg.name, kind="exact", state="finished", rows=count, indexed=0, recall=1.0, sequence=now.sequence
            )
        return IndexFacts(
            leg=leg.name,
            kind="hnsw",
            state="finished",
            rows=count,
            indexed=min(len(graph), count),
            search={"breadth": graph.breadth},
            recall=graph.recall,
            sequence=graph.moment.sequence,
        )

    def _scanned(self, filter: Filter | None, vectors: bool) -> Iterator[Document]:
        passing, after = condition(filter, self._layout), ""
        while True:
            with self._reading() as (connection, _):
                ids = rows.page_of_ids(connection, self._layout, after, passing)
                found = rows.documents(connection, self._layout, ids, vectors=vectors)
            if not ids:
                return
            yield from found.values()
            after = ids[-1]

    @contextmanager
    def _reading(self) -> Iterator[tuple[sqlite3.Connection, Moment]]:
        with self._place.reading() as connection:
            yield connection, self._now(connection)

    @contextmanager
    def _at_a_moment(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as (connection, _):
            yield connection

    def _take_away(self, numbers: Sequence[int]) -> None:
        with self._writing(bool(numbers)) as writing:
            writing.remove_rows(numbers)

    def _now(self, connection: sqlite3.Connection) -> Moment:
        if self._is_closed:
            raise WrongUse(f"collection '{self.collection.name}' was closed here; open it again")
        return rows.moment(connection, self.physical_name) or self._replaced(connection)

    def _replaced(self, connection: sqlite3.Connection) -> NoReturn:
        found = connection.execute("SELECT physical FROM aliases WHERE name = ?", (self.collection.name,)).fetchone()
        now = rows.layout_of(connection, found[0]) if found else None
        raise replaced(self.collection, now.collection if now else None, str(self._place.path))

    @contextmanager
    def _writing(self, something: bool) -> Iterator[Writing]:
        """One transaction of the one who holds the lease; where there is nothing to write, only the refusals."""
        if not something:
            with self._reading() as (connection, now):
                yield Writing(connection, self._layout, now)
            return
        with self._place.writing() as connection:
            now = self._now(connection)
            epoch, holder = connection.execute(
                "SELECT epoch, holder FROM collections WHERE physical = ?", (self.physical_name,)
            ).fetchone()
            epoch, holder = self._lease.claimed(epoch, holder)
            writing = Writing(connection, self._layout, now)
            yield writing
            after = writing.moment()
            connection.execute(
                "UPDATE collections SET sequence = ?, top = ?, gone = ?, epoch = ?, holder = ? WHERE physical = ?",
                (after.sequence, after.top, after.gone, epoch, holder, self.physical_name),
            )
        self._lease.committed(epoch)
        self._wrote = True
        for builder in self._builders.values():
            builder.wrote(after)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, self._what)

    def _checked(self, filter: Filter | None) -> None:
        if filter is not None:
            filters.check(filter, self.collection)


class EmbeddedWords:
    """The lexical leg of a store."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._index = WordIndex(store._layout)
        self._lock = Lock()

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        """The k best rows by BM25, ties in order of (id, chunk). A text without any word finds nothing."""
        if k < 1:
            raise WrongUse(f"k = {k}: ask for at least one result")
        store = self._store
        store._checked(filter)
        deadline = store._deadline(timeout)
        with store._place.reading() as connection, deadline.over(connection):
            with deadline.holding(self._lock):
                now = store._now(connection)
                view = self._index.view(connection, now, deadline)
            allowed = None if filter is None else store._allowed.passing(connection, now, filter)
            return self._index.search(connection, view, text, k, allowed)

    def close(self) -> None:
        """Let go of what runs in the background; the store does it too."""
        self._index.close()
