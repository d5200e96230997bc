"""Reads one collection's documents by id, in turn, or counts their rows: always as of now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.collection import Document, Head, Leg, Row, Scalar, is_of_type
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import ALWAYS, one_of, quoted
from bartizan_connector.store.milvus.failures import calling, is_oversize
from bartizan_connector.store.milvus.ledger import IN_ORDER, Entry, in_portions
from bartizan_connector.store.milvus.preparation import Prepared
from bartizan_connector.store.milvus.schema import primary_key

_ROWS_AT_ONCE = 500
_IDS_AT_ONCE = 500
_KEYS_AT_ONCE = 10_000
_BYTES_AT_ONCE = 8 << 20


class Reader:
    """The ledger says which ids there are and how far their chunks reach, so rows are asked for by key."""

    def __init__(self, connection: Connection, prepared: Prepared) -> None:
        self._connection = connection
        self._physical = prepared.found.physical
        self._collection = prepared.found.contract
        self._ledger = prepared.ledger
        self._indexes = prepared.indexes

    def get(self, ids: Sequence[str], vectors: bool) -> dict[str, Document]:
        """The documents of these ids; ids without rows are left out."""
        entries = self._ledger.read(id for id in ids if id and is_of_type(id, "string"))
        return {document.id: document for document in self._documents(list(entries.values()), vectors)}

    def scan(self, expression: str, vectors: bool) -> Iterator[Document]:
        """Every document of which a row passes the expression ("": any), by rising id, a page of ids at a time."""
        for entries in self._ledger.pages("deleted == false", _IDS_AT_ONCE):
            yield from self._documents(self._passing(entries, expression), vectors)

    def count(self, expression: str) -> int:
        """How many rows pass the expression ("": any)."""
        (counted,) = self.query(expression or ALWAYS, ["count(*)"])
        return int(counted["count(*)"])

    def count_all(self) -> int:
        """How many rows there are."""
        return self.count("")

    def vectors(self, leg: Leg) -> Iterator[tuple[list[tuple[str, int]], list[Vector]]]:
        """(id, chunk) and vector of every row, by rising key, a page at a time."""
        size = max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * leg.dim))) if leg.kind == "dense" else _ROWS_AT_ONCE
        for page in self._pages(["pk", "id", "chunk", leg.name], size):
            yield [(row["id"], row["chunk"]) for row in page], [vector_of(leg, row[leg.name]) for row in page]

    def sample(self, leg: Leg, count: int, dice: np.random.Generator) -> list[Vector]:
        """The vectors of so many rows, drawn out of all keys."""
        kept: list[str] = []
        seen = 0
        for page in self._pages(["pk"], _KEYS_AT_ONCE):
            for row in page:
                seen += 1
                if len(kept) < count:
                    kept.append(row["pk"])
                elif (at := int(dice.integers(0, seen))) < count:
                    kept[at] = row["pk"]
        found = {row["pk"]: row[leg.name] for row in self.rows(kept, ["pk", leg.name])}
        return [vector_of(leg, found[key]) for key in kept if key in found]

    def _pages(self, fields: Sequence[str], size: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        self.query(ALWAYS, ["pk"], limit=1)  # waits for all that was written until now
        last = ""
        while page := self.query(f"pk > {quoted(last)}" if last else ALWAYS, fields, limit=size, **IN_ORDER):
            yield page
            last = page[-1]["pk"]

    def fields_of(self, keys: Sequence[str], fields: Sequence[str], timeout: float) -> dict[str, Mapping[str, Any]]:
        """Primary key → those fields, for the keys that are there."""
        return {row["pk"]: row for row in self.rows(keys, ["pk", *fields], timeout=timeout)}

    def _passing(self, entries: Sequence[Entry], expression: str) -> list[Entry]:
        if not expression:
            return list(entries)
        passing: set[str] = set()
        for keys in in_portions(_keys(entries), _ROWS_AT_ONCE):
            passing.update(row["id"] for row in self.query(f"{one_of('pk', keys)} and ({expression})", ["id"]))
        return [entry for entry in entries if entry.head.id in passing]

    def _documents(self, entries: Sequence[Entry], vectors: bool) -> Iterator[Document]:
        """The documents of these entries, of which no more are held at once than one request gives."""
        for some in _together([entry for entry in entries if entry.is_known and not entry.head.deleted]):
            found: dict[str, list[Row]] = {entry.head.id: [] for entry in some}
            heads = {entry.head.id: entry.head for entry in some}
            fields = ["id", "chunk", *(spec.name for spec in self._collection.fields)]
            legs = [leg.name for leg in self._collection.legs] if vectors else []
            for row in self.rows(_keys(some), [*fields, *legs]):
                found[row["id"]].append(self.row(row, heads[row["id"]], vectors))
            for id, rows in found.items():
                if rows:
                    yield Document(id=id, rows=tuple(sorted(rows, key=lambda row: row.chunk)), head=heads[id])

    def rows(
        self, keys: Sequence[str], fields: Sequence[str], *, timeout: float | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """The rows of these keys; where they are too long for one answer, of half of them at a time."""
        for some in in_portions(keys, _ROWS_AT_ONCE):
            try:
                yield from self.query(one_of("pk", some), fields, timeout=timeout)
            except Stop as error:
                if not is_oversize(error) or len(some) == 1:
                    raise
                middle = len(some) // 2
                yield from self.rows(some[:middle], fields, timeout=timeout)
                yield from self.rows(some[middle:], fields, timeout=timeout)

    def query(
        self, expression: str, fields: Iterable[str], *, timeout: float | None = None, **options: Any
    ) -> Sequence[Mapping[str, Any]]:
        """These fields of the rows that the expression holds for."""
        self._indexes.require_readable(fields := list(fields))
        with calling(self._connection.place):
            found: Sequence[Mapping[str, Any]] = self._connection.client.query(
                self._physical,
                filter=expression,
                output_fields=fields,
                consistency_level="Strong",
                timeout=timeout or self._connection.timeout,
                **options,
            )
        return found

    def row(self, found: Mapping[str, Any], head: Head, vectors: bool) -> Row:
        fields: dict[str, Scalar] = {spec.name: found[spec.name] for spec in self._collection.fields}
        return Row(
            id=head.id,
            chunk=found["chunk"],
            vectors={leg.name: vector_of(leg, found[leg.name]) for leg in self._collection.legs} if vectors else {},
            fields=fields,
            version=head.version,
            hash=head.hash,
            origin=head.origin,
            offset=head.offset,
        )


def _keys(entries: Iterable[Entry]) -> list[str]:
    return [primary_key(entry.head.id, chunk) for entry in entries for chunk in range(entry.chunks)]


def _together(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries by as many as one request gives the rows of; one alone may have more."""
    some: list[Entry] = []
    rows = 0
    for entry in entries:
        if some and rows + entry.chunks > _ROWS_AT_ONCE:
            yield some
            some, rows = [], 0
        some.append(entry)
        rows += entry.chunks
    if some:
        yield some


def vector_of(leg: Leg, stored: Any) -> Vector:
    """As it was given: an empty sparse vector is stored as a term beyond the vocabulary."""
    if leg.kind == "dense":
        return Vector(leg.space_id, np.array(stored, dtype=np.float32))
    terms = sorted(int(term) for term in stored if int(term) < leg.dim)
    weights = [stored[term] for term in terms]
    return Vector(leg.space_id, SparseVector(np.array(terms, dtype=np.int32), np.array(weights, dtype=np.float32)))
