"""MilvusBackend: rows, heads and search in a Milvus Lite file or on a Milvus server.

The order of effects is the guarantee. A write goes: 1 announce in the ledger how far an id's chunks will reach, where
that grows · 2 write the rows · 3 remove the chunks that are left over · 4 complete the ledger. Whoever is killed in
between has not completed, so the documents come again, and the announcement tells what that write must remove.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, Literal

from bartizan_connector.base.errors import BartizanError, WrongUse
from bartizan_connector.space.vectors import SparseVector, Vectors
from bartizan_connector.store.checks import checked_heads, checked_query, checked_rows
from bartizan_connector.store.collection import Collection, Head, Hit, Row, is_of_type
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import one_of, render
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import Entry, Ledger, in_portions
from bartizan_connector.store.milvus.preparation import Preparation
from bartizan_connector.store.milvus.ranking import Search
from bartizan_connector.store.milvus.schema import IndexChoice, entity_of, primary_key

Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]

_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 << 20
"""A server takes at most 64 MiB in one request."""
_SLOW_FROM = 500
"""Rows that Milvus Lite has not flushed are compared one by one: 500 double a search's time, flushing takes 0.1 s."""
_INDEXED_FROM = 1024
"""A server makes no index over fewer rows, so flushing them gains nothing; its log keeps them anyway."""


class MilvusBackend:
    """One collection at a time, chosen by `ensure`. Safe to share between threads; writes take turns."""

    def __init__(
        self,
        uri: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        consistency: Consistency = "Bounded",
        index: IndexChoice = "auto",
    ) -> None:
        self._connection = Connection(uri, token, timeout)
        self._consistency = consistency
        self._index = index
        self._lock = RLock()
        self._chosen: Collection | None = None
        self._index_types: dict[str, str] = {}
        self._unflushed = 0
        self._fresh: dict[str, Entry] = {}
        """What `heads` has just read. The write that follows takes it from here, once: a read costs a server 0.2 s, as
        much as all the rest of a batch, and heads are read before a write anyway, by the collection's one writer."""

    def ensure(self, collection: Collection, *, create: bool = True) -> None:
        with self._lock:
            self._connection.open(create=create)
            self._fresh = {}
            try:
                self._flush()
                Preparation(self._connection, collection, self._index).run(create=create)
                self._index_types = {leg.name: self._index_type(collection.name, leg.name) for leg in collection.legs}
            except BartizanError:
                if self._chosen is None:  # nobody has this in hand to close it
                    self._connection.close()
                raise
            self._chosen = collection
            self._unflushed = _SLOW_FROM if self._connection.file else 0  # what another run left is not known

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._lock:
            self._fresh = {}
            self._fresh = self._read([id for id in ids if id and is_of_type(id, "string")])
            return {id: entry.head for id, entry in self._fresh.items() if entry.is_known}

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._lock:
            documents = checked_rows(self._collection, rows)
            before = self._read([document.id for document in documents])
            after = {document.id: Entry(document.head, document.rows[-1].chunk + 1) for document in documents}
            self._announce(before, after)
            self._write_rows([row for document in documents for row in document.rows])
            kept = {primary_key(row.id, row.chunk) for document in documents for row in document.rows}
            reach = {id: max(before[id].chunks, after[id].chunks) for id in after}
            self._remove_rows([key for id in after for key in _keys(id, reach[id]) if key not in kept])
            self._complete(list(after.values()))

    def touch(self, heads: Sequence[Head]) -> None:
        with self._lock:
            checked = checked_heads(heads)
            before = self._read([head.id for head in checked])
            after = {head.id: Entry(head, before[head.id].chunks) for head in checked}
            self._complete(list(after.values()))
            self._fresh |= after

    def delete(self, heads: Sequence[Head]) -> None:
        with self._lock:
            checked = checked_heads(heads)
            before = self._read([head.id for head in checked])
            self._remove_rows([key for head in checked for key in _keys(head.id, before[head.id].chunks)])
            self._complete([Entry(replace(head, deleted=True)) for head in checked])

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        collection = self._collection
        chosen = checked_query(collection, leg, vectors, k, filter)
        if self._connection.file and self._unflushed >= _SLOW_FROM:
            with self._lock:
                self._flush()
        expression = "" if filter is None else render(filter, collection)
        search = Search(self._connection, collection, chosen, self._index_types[leg], self._consistency, expression)
        queries = {i: query for i, vector in enumerate(vectors) if (query := _query(vector.value)) is not None}
        found = search.run(list(queries.values()), k, self._connection.timeout if timeout is None else timeout)
        hits = dict(zip(queries, found, strict=True))
        return [hits.get(i, []) for i in range(len(vectors))]

    def close(self) -> None:
        with self._lock:
            if not self._connection.is_open:
                return
            try:
                self._flush()
            finally:
                self._chosen = None
                self._connection.close()

    @property
    def _collection(self) -> Collection:
        if self._chosen is None:
            raise WrongUse("call ensure(collection) before anything else")
        return self._chosen

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self._connection, self._collection.name)

    def _index_type(self, collection: str, field: str) -> str:
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            (name,) = client.list_indexes(collection, field_name=field, timeout=timeout)
            return str(client.describe_index(collection, name, timeout=timeout)["index_type"])

    def _read(self, ids: Sequence[str]) -> dict[str, Entry]:
        """What the ledger holds of every one of these ids."""
        fresh = {id: self._fresh.pop(id) for id in set(ids) if id in self._fresh}
        read = self._ledger.read(id for id in ids if id not in fresh)
        return {id: Entry.unknown(id) for id in ids} | read | fresh

    def _announce(self, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
        """Before rows are written beyond where the ledger says that an id may have some."""
        growing = [id for id in after if after[id].chunks > before[id].chunks]
        self._ledger.write([Entry(before[id].head, after[id].chunks) for id in growing])

    def _complete(self, entries: Sequence[Entry]) -> None:
        self._ledger.write(entries)

    def _write_rows(self, rows: Sequence[Row]) -> None:
        """Upsert, never insert: an insert of a key that is there makes it stand twice."""
        for some in _bounded(rows, self._collection):
            with calling(self._connection.place, ids=sorted({row.id for row in some})):
                self._connection.client.upsert(
                    self._collection.name,
                    [entity_of(row, self._collection) for row in some],
                    timeout=self._connection.timeout,
                )
            self._unflushed += len(some)

    def _remove_rows(self, keys: Sequence[str]) -> None:
        """By an expression of our own: the one that pymilvus makes of `ids` quotes nothing that it must."""
        for some in in_portions(keys, _ROWS_AT_ONCE):
            with calling(self._connection.place):
                self._connection.client.delete(
                    self._collection.name, filter=one_of("pk", some), timeout=self._connection.timeout
                )
            self._unflushed += len(some)

    def _flush(self) -> None:
        """Give what was written an index."""
        if self._chosen is None or self._unflushed < (1 if self._connection.file else _INDEXED_FROM):
            return
        names = [self._chosen.name] + ([self._ledger.name] if self._connection.file else [])
        for name in names:
            with calling(self._connection.place):
                self._connection.client.flush(name, timeout=self._connection.timeout)
        self._unflushed = 0


def _keys(id: str, reach: int) -> Iterator[str]:
    return (primary_key(id, chunk) for chunk in range(reach))


def _query(value: Any) -> Any:
    """The vector as Milvus takes it; None where nothing can be found."""
    if not isinstance(value, SparseVector):
        return value
    return dict(zip(value.indices.tolist(), value.weights.tolist(), strict=True)) or None


def _bounded(rows: Sequence[Row], collection: Collection) -> Iterator[list[Row]]:
    """The rows in requests of bounded length and size."""
    some: list[Row] = []
    size = 0
    for row in rows:
        weight = _bytes_of(row)
        if some and (len(some) == _ROWS_AT_ONCE or size + weight > _BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append(row)
        size += weight
    if some:
        yield some


def _bytes_of(row: Row) -> int:
    texts = sum(4 * len(value) for value in row.fields.values() if isinstance(value, str))
    numbers = 0
    for vector in row.vectors.values():
        value = vector.value
        numbers += 16 * len(value.indices) if isinstance(value, SparseVector) else value.nbytes
    return 256 + texts + numbers
