"""What a collection knows of each id, in a collection of its own beside the rows.

Apart from the rows, an unchanged document's version moves on without its vectors being written again, tombstones stay
out of the vector index, and no search has to filter them out (docs/decisions/002).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pymilvus import CollectionSchema, DataType, MilvusClient

from bartizan_connector.store.checks import MAX_HASH_BYTES
from bartizan_connector.store.collection import MAX_ID_BYTES, Head
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import one_of
from bartizan_connector.store.milvus.failures import calling

T = TypeVar("T")

_AT_ONCE = 1000
_UNKNOWN = -1
"""The version of an id whose rows were announced and perhaps written, but not yet completed."""
_DUMMY = [0.0, 0.0]
"""Milvus keeps nothing without a vector."""


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


class Ledger:
    """Reads and writes entries, each id once; sees its own writes at once."""

    def __init__(self, connection: Connection, rows_name: str) -> None:
        self.name = f"{rows_name}__heads"
        self._connection = connection

    def schema(self) -> CollectionSchema:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("version", DataType.INT64)
        schema.add_field("hash", DataType.VARCHAR, max_length=MAX_HASH_BYTES)
        schema.add_field("deleted", DataType.BOOL)
        schema.add_field("chunks", DataType.INT64)
        schema.add_field("dummy", DataType.FLOAT_VECTOR, dim=len(_DUMMY))
        return schema

    def index(self) -> Any:
        return MilvusClient.prepare_index_params("dummy", index_type="FLAT", metric_type="IP")

    def read(self, ids: Iterable[str]) -> dict[str, Entry]:
        """The entries of these ids, as of now."""
        entries: dict[str, Entry] = {}
        for some in in_portions(sorted(set(ids)), _AT_ONCE):
            with calling(self._connection.place):
                found = self._connection.client.query(
                    self.name,
                    filter=one_of("id", some),
                    output_fields=["id", "version", "hash", "deleted", "chunks"],
                    consistency_level="Strong",
                    timeout=self._connection.timeout,
                )
            entries |= {one["id"]: _entry(one) for one in found}
        return entries

    def write(self, entries: Sequence[Entry]) -> None:
        """Replace the entries of these ids."""
        for some in in_portions(entries, _AT_ONCE):
            data = [
                {
                    "id": entry.head.id,
                    "version": entry.head.version,
                    "hash": entry.head.hash,
                    "deleted": entry.head.deleted,
                    "chunks": entry.chunks,
                    "dummy": _DUMMY,
                }
                for entry in some
            ]
            with calling(self._connection.place, ids=[entry.head.id for entry in some]):
                self._connection.client.upsert(self.name, data, timeout=self._connection.timeout)


def in_portions(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values, at most `size` at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _entry(found: Mapping[str, Any]) -> Entry:
    head = Head(id=found["id"], version=found["version"], hash=found["hash"], deleted=found["deleted"])
    return Entry(head, found["chunks"])
