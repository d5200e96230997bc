"""What stands in the file: heads page by page with their rows, and the rows for which no head accounts."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.audit import PAGE, Balance, Standing, Stray, read_vectors
from bartizan_connector.store.collection import Head, Leg, Row
from bartizan_connector.store.embedded.layout import Layout, vector_of
from bartizan_connector.store.embedded.rows import blobs, heads, portions
from bartizan_connector.store.embedded.stems import counted

Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]
Removing = Callable[[Sequence[int]], None]


class EmbeddedAudit:
    """Each page is of one moment."""

    def __init__(self, layout: Layout, reading: Reading, removing: Removing) -> None:
        self._layout = layout
        self._reading = reading
        self._removing = removing

    def standings(self) -> Iterator[list[Standing]]:
        after = ""
        sql = f"SELECT id FROM {self._layout.heads} WHERE id > ? ORDER BY id LIMIT {PAGE}"
        while True:
            with self._reading() as connection:
                ids = [id for (id,) in connection.execute(sql, (after,))]
                page = self._of(connection, ids)
            if not ids:
                return
            yield page
            after = ids[-1]

    def heads(self) -> Iterator[list[Head]]:
        after = ""
        sql = f"SELECT id FROM {self._layout.heads} WHERE id > ? ORDER BY id LIMIT {PAGE}"
        while True:
            with self._reading() as connection:
                ids = [id for (id,) in connection.execute(sql, (after,))]
                page = list(heads(connection, self._layout, ids).values())
            if not ids:
                return
            yield page
            after = ids[-1]

    def again(self, ids: Sequence[str]) -> list[Standing]:
        with self._reading() as connection:
            return self._of(connection, ids)

    def strays(self) -> Iterator[list[Stray]]:
        after = 0
        sql = (
            f"SELECT main.row, main.id, main.chunk FROM {self._layout.rows} AS main "
            f"LEFT JOIN {self._layout.heads} AS head ON head.id = main.id "
            f"WHERE main.row > ? AND (head.id IS NULL OR head.deleted) ORDER BY main.row LIMIT {PAGE}"
        )
        while True:
            with self._reading() as connection:
                found = connection.execute(sql, (after,)).fetchall()
            if not found:
                return
            yield [Stray(id=id, chunk=chunk, number=row) for row, id, chunk in found]
            after = found[-1][0]

    def remove(self, strays: Sequence[Stray]) -> None:
        self._removing([stray.number for stray in strays])

    def balance(self) -> Balance | None:
        sql = "SELECT holder FROM collections WHERE physical = ?"
        with self._reading() as connection:
            (holder,) = connection.execute(sql, (self._layout.physical,)).fetchone()
        return balance_of(holder)

    def now(self) -> Balance:
        with self._reading() as connection:
            return counts(connection, self._layout)

    def _of(self, connection: sqlite3.Connection, ids: Sequence[str]) -> list[Standing]:
        rows, unworded = self._rows(connection, ids)
        return [
            Standing(
                id=id, head=head, rows=tuple(rows.get(id, ())) if not head.deleted else (), worded=id not in unworded
            )
            for id, head in heads(connection, self._layout, ids).items()
        ]

    def _rows(self, connection: sqlite3.Connection, ids: Sequence[str]) -> tuple[dict[str, list[Row]], set[str]]:
        """The rows of these ids, and those ids whose words are not those of their rows."""
        layout = self._layout
        known: Mapping[str, Head] = heads(connection, layout, ids)
        rows: dict[str, list[Row]] = {}
        unworded: set[str] = set()
        for some in portions(list(known)):
            sql = (
                f"SELECT main.row, main.id, main.chunk{layout.all_fields} FROM {layout.joined(aside=layout.has_aside)} "
                f"WHERE main.id IN ({','.join('?' * len(some))}) ORDER BY main.id, main.chunk"
            )
            found = connection.execute(sql, some).fetchall()
            numbers = [line[0] for line in found]
            values = {leg.name: blobs(connection, layout, leg.name, numbers) for leg in layout.collection.legs}
            words = self._words(connection, numbers)
            for number, id, chunk, *columns in found:
                fields = layout.fields(columns)
                vectors = read_vectors(layout.collection.legs, _reader(values, number))
                head = known[id]
                row = Row(id=id, chunk=chunk, vectors=vectors, fields=fields, version=head.version, hash=head.hash)
                rows.setdefault(id, []).append(row)
                if layout.worded and words.get(number) != self._worded(fields):
                    unworded.add(id)
        return rows, unworded

    def _words(self, connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for some in portions(numbers) if self._layout.worded else ():
            sql = f"SELECT row, value FROM {self._layout.words} WHERE row IN ({','.join('?' * len(some))})"
            found.update(connection.execute(sql, some))
        return found

    def _worded(self, fields: Mapping[str, Any]) -> bytes:
        return counted(" ".join(str(fields[name]) for name in self._layout.worded))


def _reader(values: Mapping[str, Mapping[int, bytes]], number: int) -> Callable[[Leg], Vector | None]:
    def read(leg: Leg) -> Vector | None:
        blob = values[leg.name].get(number)
        return None if blob is None else vector_of(leg, blob)

    return read


def counts(connection: sqlite3.Connection, layout: Layout) -> Balance:
    """What is there in the moment of the connection."""
    (rows,) = connection.execute(f"SELECT count(*) FROM {layout.rows}").fetchone()
    (live,) = connection.execute(f"SELECT count(*) FROM {layout.heads} WHERE NOT deleted").fetchone()
    (deleted,) = connection.execute(f"SELECT count(*) FROM {layout.heads} WHERE deleted").fetchone()
    return Balance(rows=rows, live=live, deleted=deleted)


def balance_of(holder: str) -> Balance | None:
    """What stands in the line of a collection that nobody holds."""
    facts = json.loads(holder) if holder else {}
    return Balance(**facts) if "live" in facts else None
