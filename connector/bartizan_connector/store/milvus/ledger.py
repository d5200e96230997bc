"""What a collection knows of each id, in a collection of its own beside the rows.

Apart from the rows, an unchanged document's version moves on without its vectors being written again, tombstones stay
out of the vector index, and no search has to filter them out (docs/decisions/002).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pymilvus import CollectionSchema, DataType, MilvusClient

from bartizan_connector.store.audit import Balance
from bartizan_connector.store.checks import MAX_HASH_BYTES
from bartizan_connector.store.collection import MAX_ID_BYTES, Head
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import one_of, quoted
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.narrowing import refused_of

T = TypeVar("T")

_AT_ONCE = 1000
_UNKNOWN = -1
"""The version of an id whose rows were announced and perhaps written, but not yet completed."""
_DUMMY = [0.0, 0.0]
"""Milvus keeps nothing without a vector."""
LEASE_ID = "\x01bartizan: who writes"
"""The id of the entry that is no document's; those of a group's members begin with it."""
LEASE_VERSION = -2
_MORE = "more"
_MAX_MORE_BYTES = 8192
IN_ORDER: Mapping[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True"}
"""Makes every Milvus give the smallest keys first; 2.3 does not wait for the newest writes then."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One id: its head, and how far its chunk numbers may reach."""

    head: Head
    chunks: int = 1

    @property
    def is_known(self) -> bool:
        return self.head.version != _UNKNOWN

    @classmethod
    def unknown(cls, id: str, chunks: int = 1) -> "Entry":
        """An id that may have rows, but that nothing completed."""
        return cls(Head(id=id, version=_UNKNOWN), chunks)


def ledger_name(physical: str) -> str:
    """What the ledger of those rows is called."""
    return f"{physical}__heads"


class Ledger:
    """Reads and writes entries, each id once; sees its own writes at once.

    What a head has beside version, hash and deletion stands as JSON in the field `more`, so that a later fact needs no
    new field. A ledger of 0.1.0 lacks it (`has_more=False`): its heads come back without origin and offset."""

    def __init__(self, connection: Connection, physical: str, *, has_more: bool = True) -> None:
        self.name = ledger_name(physical)
        self.written = self.name
        """What it is written by: the name, or the alias of the one who may write."""
        self._connection = connection
        self._has_more = has_more
        self._fields = ["id", "version", "hash", "deleted", "chunks", *([_MORE] if has_more else [])]

    @classmethod
    def described(cls, connection: Connection, physical: str, description: Mapping[str, Any]) -> "Ledger":
        """The ledger with the fields that it was made with."""
        return cls(connection, physical, has_more=_MORE in {field["name"] for field in description["fields"]})

    def schema(self) -> CollectionSchema:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("version", DataType.INT64)
        schema.add_field("hash", DataType.VARCHAR, max_length=MAX_HASH_BYTES)
        schema.add_field("deleted", DataType.BOOL)
        schema.add_field("chunks", DataType.INT64)
        schema.add_field(_MORE, DataType.VARCHAR, max_length=_MAX_MORE_BYTES)
        schema.add_field("dummy", DataType.FLOAT_VECTOR, dim=len(_DUMMY))
        return schema

    @staticmethod
    def marker_schema() -> CollectionSchema:
        """Of a collection that holds nothing."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("dummy", DataType.FLOAT_VECTOR, dim=len(_DUMMY))
        return schema

    def index(self) -> Any:
        return MilvusClient.prepare_index_params("dummy", index_type="FLAT", metric_type="IP")

    def read(self, ids: Iterable[str]) -> dict[str, Entry]:
        """The entries of these ids, as of now."""
        entries: dict[str, Entry] = {}
        for some in in_portions(sorted(set(ids)), _AT_ONCE):
            entries |= {entry.head.id: entry for entry in self._query(one_of("id", some))}
        return entries

    def members(self) -> dict[str, Entry]:
        """The entries of the members of a group, by id."""
        return {
            entry.head.id: entry for entry in self._query(f"version == {LEASE_VERSION}") if entry.head.id != LEASE_ID
        }

    def remove(self, ids: Sequence[str]) -> None:
        """Take entries away, as if they had never been."""
        for some in in_portions(ids, _AT_ONCE):
            with calling(self._connection.place):
                self._connection.client.delete(
                    self.written, filter=one_of("id", some), timeout=self._connection.timeout
                )

    def pages(self, condition: str, size: int) -> Iterator[list[Entry]]:
        """The entries for which the condition holds, by rising id; each page is as of when it is asked for, or a little
        older, but none older than the first."""
        self._query(condition, limit=1)  # waits for all that was written until now
        last = ""
        while page := self._query(f"{condition} and {_after(last)}", limit=size, **IN_ORDER):
            yield page
            last = page[-1].head.id

    def write(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Replace the entries of these ids; the answer is id → reason of those that are refused."""
        refused: dict[str, str] = {}
        for some in in_portions(entries, _AT_ONCE):
            refused |= refused_of(some, self._send, lambda entry: entry.head.id)
        return refused

    def entity(self, entry: Entry) -> dict[str, Any]:
        """The entry with every field named."""
        return {
            "id": entry.head.id,
            "version": entry.head.version,
            "hash": entry.head.hash,
            "deleted": entry.head.deleted,
            "chunks": entry.chunks,
            "dummy": _DUMMY,
            **({_MORE: _more_of(entry.head)} if self._has_more else {}),
        }

    def forget(self, before: int, since: int) -> int:
        """Remove the entries of deleted ids from one version to below another, and say how many."""
        below, least = (max(0, min(version, 2**63 - 1)) for version in (before, since))
        condition, count = f"deleted == true and version < {below} and version >= {least}", 0
        for page in self.pages(condition, _AT_ONCE):
            expression = f"{one_of('id', [entry.head.id for entry in page])} and {condition}"
            with calling(self._connection.place):
                self._connection.client.delete(self.written, filter=expression, timeout=self._connection.timeout)
            count += len(page)
        return count

    def balance(self, rows: int) -> Balance:
        """How many documents there are and are remembered as removed, beside so many rows."""
        return Balance(rows=rows, live=self.count("deleted == false"), deleted=self.count("deleted == true"))

    def count(self, condition: str) -> int:
        """How many entries of documents the condition holds for, as of now."""
        with calling(self._connection.place):
            (counted,) = self._connection.client.query(
                self.name,
                filter=f"version != {LEASE_VERSION} and {condition}",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._connection.timeout,
            )
        return int(counted["count(*)"])

    def _query(self, expression: str, **options: Any) -> list[Entry]:
        with calling(self._connection.place):
            found = self._connection.client.query(
                self.name,
                filter=expression,
                output_fields=self._fields,
                consistency_level="Strong",
                timeout=self._connection.timeout,
                **options,
            )
        return sorted(map(_entry, found), key=lambda entry: entry.head.id)

    def _send(self, entries: Sequence[Entry]) -> None:
        data = [self.entity(entry) for entry in entries]
        with calling(self._connection.place, ids=[entry.head.id for entry in entries]):
            self._connection.client.upsert(self.written, data, timeout=self._connection.timeout)


def is_reserved(id: str) -> bool:
    """Whether an id is the ledger's own."""
    return id.startswith(LEASE_ID)


def in_portions(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values, at most `size` at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _after(id: str) -> str:
    """Milvus takes no comparison with an empty text for granted, and an id is never empty."""
    return f"id > {quoted(id)}" if id else 'id != ""'


def _more_of(head: Head) -> str:
    facts = {"origin": head.origin, "offset": head.offset}
    more = {name: value for name, value in facts.items() if value}
    return json.dumps(more, ensure_ascii=False) if more else ""


def _entry(found: Mapping[str, Any]) -> Entry:
    more = json.loads(found.get(_MORE) or "{}")
    head = Head(
        id=found["id"],
        version=found["version"],
        hash=found["hash"],
        deleted=found["deleted"],
        origin=more.get("origin", ""),
        offset=more.get("offset", 0),
    )
    return Entry(head, found["chunks"])
