"""Reading the truth: heads, documents, counts, and what stands under a row number."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.collection import Collection, Document, Head, Hit, Leg, Row, is_of_type
from bartizan_connector.store.embedded.filters_sql import Condition
from bartizan_connector.store.embedded.layout import Layout, vector_of, wanted

Numbers = npt.NDArray[np.int64]
T = TypeVar("T")

_AT_ONCE = 1_000
"""Parameters of one statement."""
_PAGE = 256
"""Documents that a scan holds at once."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a collection is in the moment that a transaction sees."""

    sequence: int
    top: int
    gone: int


def layout_of(connection: sqlite3.Connection, physical: str) -> Layout | None:
    """The collection of that physical name, if it is there."""
    found = connection.execute("SELECT number, contract FROM collections WHERE physical = ?", (physical,)).fetchone()
    return Layout(found[0], physical, Collection.model_validate(json.loads(found[1]))) if found else None


def moment(connection: sqlite3.Connection, physical: str) -> Moment | None:
    """How far it is now; None when it was dropped."""
    found = connection.execute("SELECT sequence, top, gone FROM collections WHERE physical = ?", (physical,)).fetchone()
    return Moment(*found) if found else None


def heads(connection: sqlite3.Connection, layout: Layout, ids: Sequence[str]) -> dict[str, Head]:
    known: dict[str, Head] = {}
    for some in portions(storable(ids)):
        for id, version, hash, deleted, origin, offset in connection.execute(
            f"SELECT id, version, hash, deleted, origin, place FROM {layout.heads} WHERE id IN ({_marks(some)})", some
        ):
            known[id] = Head(id=id, version=version, hash=hash, deleted=bool(deleted), origin=origin, offset=offset)
    return {id: known[id] for id in ids if id in known}


def documents(
    connection: sqlite3.Connection, layout: Layout, ids: Sequence[str], *, vectors: bool
) -> dict[str, Document]:
    """The documents of these ids that have rows, in the order of the ids."""
    rows: dict[str, list[Row]] = {}
    known = heads(connection, layout, ids)
    for some in portions(list(known)):
        sql = (
            f"SELECT main.row, main.id, main.chunk{layout.all_fields} FROM {layout.joined(aside=layout.has_aside)} "
            f"WHERE main.id IN ({_marks(some)}) ORDER BY main.id, main.chunk"
        )
        found = connection.execute(sql, some).fetchall()
        values = _vectors(connection, layout, [line[0] for line in found]) if vectors else {}
        for number, id, chunk, *fields in found:
            head = known[id]
            row = Row(
                id=id,
                chunk=chunk,
                vectors=values.get(number, {}),
                fields=layout.fields(fields),
                version=head.version,
                hash=head.hash,
                origin=head.origin,
                offset=head.offset,
            )
            rows.setdefault(id, []).append(row)
    return {id: Document(id=id, rows=tuple(rows[id]), head=known[id]) for id in ids if id in rows}


def page_of_ids(connection: sqlite3.Connection, layout: Layout, after: str, passing: Condition) -> list[str]:
    """The next ids of which a row passes, in their order."""
    sql = (
        f"SELECT DISTINCT main.id FROM {layout.joined(aside=passing.aside)} "
        f"WHERE main.id > ? AND ({passing.sql}) ORDER BY main.id LIMIT {_PAGE}"
    )
    passing.prepare(connection)
    return [id for (id,) in connection.execute(sql, (after, *passing.values))]


def count(connection: sqlite3.Connection, layout: Layout, passing: Condition) -> int:
    sql = f"SELECT count(*) FROM {layout.joined(aside=passing.aside)} WHERE {passing.sql}"
    passing.prepare(connection)
    return int(connection.execute(sql, passing.values).fetchone()[0])


def passing_rows(connection: sqlite3.Connection, layout: Layout, passing: Condition, after: int) -> Numbers:
    """The numbers above `after` whose rows pass, rising."""
    sql = (
        f"SELECT main.row FROM {layout.joined(aside=passing.aside)} "
        f"WHERE main.row > ? AND ({passing.sql}) ORDER BY main.row"
    )
    passing.prepare(connection)
    return np.array([row for (row,) in connection.execute(sql, (after, *passing.values))], dtype=np.int64)


def hits(connection: sqlite3.Connection, layout: Layout, scored: Mapping[int, float], k: int) -> list[Hit]:
    """The k best of these rows, ties in order of (id, chunk); what is no row any more is left out."""
    numbers = _first(connection, layout, scored, k)
    found: list[Hit] = []
    for some in portions(numbers):
        for line in connection.execute(layout.hits(len(some)), some).fetchall():
            found.append(Hit(id=line[1], chunk=line[2], score=scored[line[0]], fields=layout.fields(line[3:])))
    found.sort(key=lambda hit: (-hit.score, hit.id, hit.chunk))
    return found[:k]


def _first(connection: sqlite3.Connection, layout: Layout, scored: Mapping[int, float], k: int) -> list[int]:
    """The rows that can be among the k best; many that tie for the last places are told apart by the file."""
    if len(scored) <= k:
        return list(scored)
    ranked = sorted(scored, key=scored.__getitem__, reverse=True)
    least = scored[ranked[k - 1]]
    better = [number for number in ranked if scored[number] > least]
    tied = [number for number in ranked if scored[number] == least]
    if len(tied) > k - len(better) + _AT_ONCE:
        order: list[tuple[str, int, int]] = []
        for some in portions(tied):
            sql = f"SELECT id, chunk, row FROM {layout.rows} WHERE row IN ({_marks(some)})"
            order = sorted([*order, *connection.execute(sql, some)])[: k - len(better)]
        tied = [number for _, _, number in order]
    return better + tied


def blobs(connection: sqlite3.Connection, layout: Layout, leg: str, numbers: Sequence[int]) -> dict[int, bytes]:
    """The stored bytes of these rows' vectors; what is no row any more is left out."""
    found: dict[int, bytes] = {}
    for some in portions(numbers):
        sql = (
            f"{wanted(len(some))} SELECT kept.row, kept.value FROM wanted "
            f"CROSS JOIN {layout.vectors(leg)} AS kept ON kept.row = wanted.row"
        )
        found.update(connection.execute(sql, some))
    return found


def blobs_above(connection: sqlite3.Connection, table: str, row: int, top: int) -> sqlite3.Cursor:
    """(row, bytes) of every row with a number above, rising."""
    return connection.execute(f"SELECT row, value FROM {table} WHERE row > ? AND row <= ? ORDER BY row", (row, top))


def page_of_vectors(
    connection: sqlite3.Connection, layout: Layout, leg: Leg, after: int
) -> list[tuple[int, str, int, Vector]]:
    """The next rows of one leg by rising number: number, id, chunk, vector."""
    sql = (
        f"SELECT main.row, main.id, main.chunk, kept.value FROM {layout.rows} AS main "
        f"JOIN {layout.vectors(leg.name)} AS kept ON kept.row = main.row WHERE main.row > ? ORDER BY main.row LIMIT ?"
    )
    found = connection.execute(sql, (after, _AT_ONCE))
    return [(number, id, chunk, vector_of(leg, blob)) for number, id, chunk, blob in found]


def gone_since(connection: sqlite3.Connection, layout: Layout, number: int) -> Numbers:
    """The rows that went away after that number of the list."""
    sql = f"SELECT row FROM {layout.gone} WHERE number > ?"
    return np.array([row for (row,) in connection.execute(sql, (number,))], dtype=np.int64)


def count_to(connection: sqlite3.Connection, layout: Layout, top: int) -> int:
    """How many rows there are up to that number."""
    return int(connection.execute(f"SELECT count(*) FROM {layout.rows} WHERE row <= ?", (top,)).fetchone()[0])


def portions(values: Sequence[T]) -> Iterator[list[T]]:
    """Parts of what one statement can take."""
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])


def storable(ids: Sequence[str]) -> list[str]:
    """Each id once; what can be no id is left out."""
    return [id for id in dict.fromkeys(ids) if is_of_type(id, "string")]


def _vectors(connection: sqlite3.Connection, layout: Layout, numbers: Sequence[int]) -> dict[int, dict[str, Vector]]:
    values: dict[int, dict[str, Vector]] = {number: {} for number in numbers}
    leg: Leg
    for leg in layout.collection.legs:
        for number, blob in blobs(connection, layout, leg.name, numbers).items():
            values[number][leg.name] = vector_of(leg, blob)
    return values


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
