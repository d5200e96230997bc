"""How a collection lies in the file: its tables and columns, and how vectors become bytes.

A row number is given once and what stands under it never changes, so an index may keep it: it catches up by the numbers
that are new and by the list of those that are gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.collection import Collection, FieldSpec, Leg, Row, Scalar

FILE_FORMAT = 1
WORDS = ("title", "text")
"""The string fields whose words are indexed."""
_ASIDE = "text"
"""This field lies in a table of its own, so that filters need not read past it."""

SCHEMA = """
CREATE TABLE collections (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  physical TEXT NOT NULL UNIQUE,
  contract TEXT NOT NULL,
  sequence INTEGER NOT NULL DEFAULT 0,
  top INTEGER NOT NULL DEFAULT 0,
  gone INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL DEFAULT 0,
  holder TEXT NOT NULL DEFAULT ''
);
CREATE TABLE aliases (name TEXT PRIMARY KEY, physical TEXT NOT NULL) WITHOUT ROWID;
"""
"""`sequence` rises with each change of rows; `top` is the last row number, `gone` the last in the list of gone."""


@dataclass(frozen=True)
class Layout:
    """The tables of one collection."""

    number: int
    physical: str
    collection: Collection

    @property
    def rows(self) -> str:
        return f"rows_{self.number}"

    @property
    def texts(self) -> str:
        return f"texts_{self.number}"

    @property
    def heads(self) -> str:
        return f"heads_{self.number}"

    @property
    def gone(self) -> str:
        return f"gone_{self.number}"

    @property
    def words(self) -> str:
        return f"words_{self.number}"

    def vectors(self, leg: str) -> str:
        return f"vectors_{self.number}_{[each.name for each in self.collection.legs].index(leg)}"

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Field → the column it is in; numbered, as SQLite takes `a` and `A` for one name."""
        return {
            spec.name: "aside.f" if self.is_aside(spec) else f"main.f{position}"
            for position, spec in enumerate(self.collection.fields)
        }

    @staticmethod
    def is_aside(spec: FieldSpec) -> bool:
        return spec.name == _ASIDE and spec.type == "string"

    @cached_property
    def has_aside(self) -> bool:
        return any(self.is_aside(spec) for spec in self.collection.fields)

    @cached_property
    def worded(self) -> tuple[str, ...]:
        """The fields whose words are indexed."""
        strings = {spec.name for spec in self.collection.fields if spec.type == "string"}
        return tuple(name for name in WORDS if name in strings)

    @cached_property
    def all_fields(self) -> str:
        """The columns of every field in the order of the contract, each after a comma."""
        return "".join(f", {column}" for column in self.columns.values())

    def joined(self, *, aside: bool) -> str:
        """The rows, and the texts beside them if they are asked for."""
        return f"{self.rows} AS main" + (f" JOIN {self.texts} AS aside ON aside.row = main.row" if aside else "")

    @cached_property
    def _hits(self) -> str:
        aside = f" CROSS JOIN {self.texts} AS aside ON aside.row = wanted.row" if self.has_aside else ""
        return (
            f"SELECT main.row, main.id, main.chunk{self.all_fields} FROM wanted "
            f"CROSS JOIN {self.rows} AS main ON main.row = wanted.row{aside}"
        )

    def hits(self, count: int) -> str:
        """What reads so many rows by their numbers. CROSS JOIN: SQLite keeps to that order."""
        return f"{wanted(count)} {self._hits}"

    @property
    def tables(self) -> list[str]:
        legs = [self.vectors(leg.name) for leg in self.collection.legs]
        words = [self.words] if self.worded else []
        return [self.rows, self.texts, self.heads, self.gone, *legs, *words]

    def statements(self) -> list[str]:
        """What makes the tables."""
        fields = "".join(
            f", f{position} {_affinity(spec)}"
            for position, spec in enumerate(self.collection.fields)
            if not self.is_aside(spec)
        )
        made = [
            f"CREATE TABLE {self.rows} (row INTEGER PRIMARY KEY, id TEXT NOT NULL, chunk INTEGER NOT NULL{fields})",
            f"CREATE UNIQUE INDEX {self.rows}_by_id ON {self.rows} (id, chunk)",
            f"CREATE TABLE {self.texts} (row INTEGER PRIMARY KEY, f TEXT NOT NULL)",
            f"CREATE TABLE {self.heads} (id TEXT PRIMARY KEY, version INTEGER NOT NULL, hash TEXT NOT NULL, "
            "deleted INTEGER NOT NULL, origin TEXT NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID",
            f"CREATE TABLE {self.gone} (number INTEGER PRIMARY KEY, row INTEGER NOT NULL)",
        ]
        made += [
            f"CREATE TABLE {self.vectors(leg.name)} (row INTEGER PRIMARY KEY, value BLOB NOT NULL)"
            for leg in self.collection.legs
        ]
        if self.worded:
            made.append(f"CREATE TABLE {self.words} (row INTEGER PRIMARY KEY, value BLOB NOT NULL)")
        return made

    def fields(self, values: Sequence[Any]) -> dict[str, Scalar]:
        """The columns of `all_fields`, as the fields they are."""
        fields = dict(zip(self._names, values))  # noqa: B905  as many as were asked for
        for name in self._bools:
            fields[name] = bool(fields[name])
        return fields

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.collection.fields)

    @cached_property
    def _bools(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.collection.fields if spec.type == "bool")


@lru_cache(1_024)
def wanted(count: int) -> str:
    """So many numbers as a table: looked up in less time than by IN, which sorts them first."""
    return f"WITH wanted (row) AS (VALUES {', '.join(['(?)'] * count)})"


def vector_bytes(vector: Vector) -> bytes:
    """A dense vector's float32 values, or a sparse one's int32 indices and then its float32 weights."""
    value = vector.value
    if isinstance(value, SparseVector):
        return value.indices.astype("<i4").tobytes() + value.weights.astype("<f4").tobytes()
    return value.astype("<f4").tobytes()


def vector_of(leg: Leg, blob: bytes) -> Vector:
    """What `vector_bytes` made into bytes."""
    if leg.kind == "dense":
        return Vector(leg.space_id, np.frombuffer(blob, dtype="<f4").astype(np.float32))
    count = len(blob) // 8
    indices = np.frombuffer(blob, dtype="<i4", count=count).astype(np.int32)
    return Vector(leg.space_id, SparseVector(indices, np.frombuffer(blob, "<f4", offset=4 * count).astype(np.float32)))


def row_values(number: int, row: Row, layout: Layout) -> tuple[Any, ...]:
    """One line of the table of rows."""
    fields = [row.fields[spec.name] for spec in layout.collection.fields if not layout.is_aside(spec)]
    return (number, row.id, row.chunk, *fields)


def _affinity(spec: FieldSpec) -> str:
    """A float has none: SQLite would store -0.0 as 0."""
    return {"string": "TEXT", "int": "INTEGER", "bool": "INTEGER", "float": ""}[spec.type]
