"""What stands in Milvus: the ledger page by page with its rows, and the rows that it does not know."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bartizan_connector.store.audit import PAGE, Balance, Standing, Stray, read_vectors
from bartizan_connector.store.collection import Head, Row
from bartizan_connector.store.milvus.expression import quoted
from bartizan_connector.store.milvus.ledger import IN_ORDER, LEASE_VERSION, Entry, Ledger, in_portions, is_reserved
from bartizan_connector.store.milvus.preparation import Prepared
from bartizan_connector.store.milvus.reading import Reader, vector_of
from bartizan_connector.store.milvus.schema import primary_key
from bartizan_connector.store.milvus.writing import Writer

_ROWS_AT_ONCE = 1000
HEADS_AT_ONCE = 1000


class MilvusAudit:
    """Pages are as of when they are asked for."""

    def __init__(self, prepared: Prepared, reader: Reader, writer: Writer) -> None:
        self._collection = prepared.found.contract
        self._ledger: Ledger = prepared.ledger
        self._reader = reader
        self._writer = writer

    def standings(self) -> Iterator[list[Standing]]:
        for page in self._ledger.pages(f"version != {LEASE_VERSION}", PAGE):
            yield self._of(page)

    def heads(self) -> Iterator[list[Head]]:
        for page in self._ledger.pages(f"version != {LEASE_VERSION}", HEADS_AT_ONCE):
            yield [entry.head for entry in page if entry.is_known]

    def again(self, ids: Sequence[str]) -> list[Standing]:
        entries = self._ledger.read(ids)
        return self._of([entry for id, entry in entries.items() if not is_reserved(id)])

    def strays(self) -> Iterator[list[Stray]]:
        last = ""
        while True:
            after = f"pk > {quoted(last)}" if last else 'pk != ""'
            found = self._reader.query(after, ["pk", "id", "chunk"], limit=_ROWS_AT_ONCE, **IN_ORDER)
            if not found:
                return
            rows = sorted(found, key=lambda row: str(row["pk"]))
            last = str(rows[-1]["pk"])
            entries = self._ledger.read(str(row["id"]) for row in rows)
            strays = [row for row in rows if not _accounts_for(entries.get(str(row["id"])), int(row["chunk"]))]
            if strays:
                yield [Stray(id=str(row["id"]), chunk=int(row["chunk"])) for row in strays]

    def remove(self, strays: Sequence[Stray]) -> None:
        self._writer.remove([primary_key(stray.id, stray.chunk) for stray in strays])

    def balance(self) -> Balance | None:
        record = self._writer.lease.read()
        return record.balance if record else None

    def now(self) -> Balance:
        return Balance(
            rows=self._reader.count_all(),
            live=self._ledger.count("deleted == false"),
            deleted=self._ledger.count("deleted == true"),
        )

    def _of(self, entries: Sequence[Entry]) -> list[Standing]:
        keys = [
            primary_key(entry.head.id, chunk)
            for entry in entries
            if not entry.head.deleted
            for chunk in range(entry.chunks)
        ]
        fields = [spec.name for spec in self._collection.fields]
        legs = [leg.name for leg in self._collection.legs]
        rows: dict[str, list[Row]] = {}
        heads = {entry.head.id: entry.head for entry in entries}
        for some in in_portions(keys, PAGE):
            for found in self._reader.rows(some, ["id", "chunk", *fields, *legs]):
                rows.setdefault(found["id"], []).append(self._row(found, heads[found["id"]]))
        return [
            Standing(
                id=entry.head.id,
                head=entry.head if entry.is_known else None,
                reach=entry.chunks,
                rows=tuple(sorted(rows.get(entry.head.id, ()), key=lambda row: row.chunk)),
            )
            for entry in entries
        ]

    def _row(self, found: Any, head: Any) -> Row:
        bare = self._reader.row(found, head, vectors=False)
        return replace(bare, vectors=read_vectors(self._collection.legs, lambda leg: vector_of(leg, found[leg.name])))


def _accounts_for(entry: Entry | None, chunk: int) -> bool:
    return entry is not None and not entry.head.deleted and chunk < entry.chunks
