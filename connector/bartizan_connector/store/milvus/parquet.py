"""Entities in Parquet files as a Milvus server imports them: columns of declared types, files of bounded size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import CollectionSchema, DataType

from bartizan_connector.base.errors import Stop, missing_extra, require_installed

MOST_BYTES = 256 << 20
"""Of one file, before it is packed: a server reads one whole, and makes a segment or more of it."""
SUFFIX = ".parquet"


def require_engine() -> None:
    """Refuse where nothing writes such files."""
    require_installed(["pyarrow"], "data")


class Files:
    """The entities of one collection, in files `<stem>-<number>.parquet`; the next one begins where one is full."""

    def __init__(self, folder: Path, stem: str, schema: CollectionSchema, *, most_bytes: int = MOST_BYTES) -> None:
        try:
            import pyarrow
        except ImportError as error:
            raise missing_extra("pyarrow", "data") from error
        self._arrow = pyarrow
        self._folder = folder
        self._stem = stem
        self._most_bytes = most_bytes
        self._dims = {field.name: field.params.get("dim", 0) for field in schema.fields}
        self._schema = pyarrow.schema([(field.name, _type_of(field.dtype, pyarrow)) for field in schema.fields])
        self._writer: Any = None
        self._bytes = 0
        self.paths: list[Path] = []
        """What was begun; whole after `close`."""
        self.rows = 0

    def add(self, entities: Sequence[Mapping[str, Any]]) -> None:
        """Write these, of which every field is named, in their order."""
        if not entities:
            return
        table = self._arrow.table(
            [self._column(field.name, [entity[field.name] for entity in entities]) for field in self._schema],
            schema=self._schema,
        )
        if self._writer is not None and self._bytes + table.nbytes > self._most_bytes:
            self.close()
        try:
            if self._writer is None:
                self._begin()
            self._writer.write_table(table)
        except OSError as error:
            raise self._unwritable(error) from error
        self._bytes += table.nbytes
        self.rows += len(entities)

    def close(self) -> None:
        """Make the file that is being written whole. Doing it twice is fine."""
        writer, self._writer, self._bytes = self._writer, None, 0
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                raise self._unwritable(error) from error

    def _begin(self) -> None:
        from pyarrow import parquet

        path = self._folder / f"{self._stem}-{len(self.paths)}{SUFFIX}"
        self.paths.append(path)
        self._writer = parquet.ParquetWriter(str(path), self._schema)

    def _column(self, name: str, values: Sequence[Any]) -> Any:
        dim = self._dims[name]
        if not dim:
            return self._arrow.array(values, self._schema.field(name).type)
        flat = np.asarray(values, dtype=np.float32).reshape(len(values) * dim)
        starts = np.arange(0, len(flat) + 1, dim, dtype=np.int32)
        return self._arrow.ListArray.from_arrays(starts, self._arrow.array(flat))

    def _unwritable(self, error: OSError) -> Stop:
        return Stop(
            f"cannot write files into {self._folder}: {error.strerror or error}; nothing is visible yet. Mend that and "
            "run again: what was encoded is kept"
        )


def _type_of(kind: DataType, arrow: Any) -> Any:
    return {
        DataType.VARCHAR: arrow.string(),
        DataType.INT64: arrow.int64(),
        DataType.DOUBLE: arrow.float64(),
        DataType.BOOL: arrow.bool_(),
        DataType.FLOAT_VECTOR: arrow.list_(arrow.float32()),
    }[kind]
