"""Writing the truth: rows, heads and words change in one transaction, and the change sequence with them."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bartizan_connector.store.collection import Document, Head, Row
from bartizan_connector.store.embedded.layout import Layout, row_values, vector_bytes
from bartizan_connector.store.embedded.rows import Moment, portions
from bartizan_connector.store.embedded.stems import counted

KEPT_GONE = 1 << 17
"""How many rows that are gone are listed; an index that is further behind is built anew."""


class Writing:
    """One transaction's changes of one collection."""

    def __init__(self, connection: sqlite3.Connection, layout: Layout, now: Moment) -> None:
        self._connection = connection
        self._layout = layout
        self._top = now.top
        self._gone = now.gone
        self._before = now

    def upsert(self, documents: Sequence[Document]) -> None:
        """Replace these documents."""
        self._remove([document.id for document in documents])
        self._insert(documents)
        self.remember([document.head for document in documents])

    def delete(self, heads: Sequence[Head]) -> None:
        """Remove these documents, and remember at which head."""
        self._remove([head.id for head in heads])
        self.remember([replace(head, deleted=True) for head in heads])

    def remember(self, heads: Sequence[Head]) -> None:
        """These heads, as they are given."""
        self._connection.executemany(
            f"INSERT OR REPLACE INTO {self._layout.heads} (id, version, hash, deleted, origin, place) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            ((head.id, head.version, head.hash, head.deleted, head.origin, head.offset) for head in heads),
        )

    def purge(self, before: int, since: int) -> int:
        """Forget what was deleted from one version to below another, and say how many."""
        sql = f"DELETE FROM {self._layout.heads} WHERE deleted AND version < ? AND version >= ?"
        return self._connection.execute(sql, [max(0, min(version, 2**63 - 1)) for version in (before, since)]).rowcount

    def moment(self) -> Moment:
        """How far the collection is once this is durable."""
        changed = (self._top, self._gone) != (self._before.top, self._before.gone)
        return Moment(self._before.sequence + changed, self._top, self._gone)

    def _insert(self, documents: Sequence[Document]) -> None:
        layout, execute = self._layout, self._connection.executemany
        rows = [row for document in documents for row in document.rows]
        numbered = list(enumerate(rows, self._top + 1))
        self._top += len(rows)
        columns = 3 + sum(not layout.is_aside(spec) for spec in layout.collection.fields)
        execute(
            f"INSERT INTO {layout.rows} VALUES ({', '.join('?' * columns)})",
            (row_values(number, row, layout) for number, row in numbered),
        )
        if layout.has_aside:
            execute(
                f"INSERT INTO {layout.texts} (row, f) VALUES (?, ?)",
                ((number, row.fields["text"]) for number, row in numbered),
            )
        for leg in layout.collection.legs:
            execute(
                f"INSERT INTO {layout.vectors(leg.name)} (row, value) VALUES (?, ?)",
                ((number, vector_bytes(row.vectors[leg.name])) for number, row in numbered),
            )
        if layout.worded:
            execute(
                f"INSERT INTO {layout.words} (row, value) VALUES (?, ?)",
                ((number, self._words(row)) for number, row in numbered),
            )

    def _words(self, row: Row) -> bytes:
        return counted(" ".join(str(row.fields[name]) for name in self._layout.worded))

    def _remove(self, ids: Sequence[str]) -> None:
        self.remove_rows(list(self._numbers(ids)))

    def remove_rows(self, rows: Sequence[int]) -> None:
        """Take these rows away, whatever the heads say."""
        layout, connection = self._layout, self._connection
        for numbers in portions(rows):
            lines = [(number,) for number in numbers]
            tables = [layout.rows, *(layout.vectors(leg.name) for leg in layout.collection.legs)]
            if layout.has_aside:
                tables.append(layout.texts)
            if layout.worded:
                tables.append(layout.words)
            for table in tables:
                connection.executemany(f"DELETE FROM {table} WHERE row = ?", lines)
            connection.executemany(
                f"INSERT INTO {layout.gone} (number, row) VALUES (?, ?)", enumerate(numbers, self._gone + 1)
            )
            self._gone += len(numbers)
        if self._gone > self._before.gone:
            connection.execute(f"DELETE FROM {layout.gone} WHERE number <= ?", (self._gone - KEPT_GONE,))

    def _numbers(self, ids: Sequence[str]) -> Iterator[int]:
        for some in portions(ids):
            marks = ", ".join("?" * len(some))
            sql = f"SELECT row FROM {self._layout.rows} WHERE id IN ({marks})"
            yield from (number for (number,) in self._connection.execute(sql, some).fetchall())
