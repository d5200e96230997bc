"""The words of a collection: full text in the same file, written by the same transaction as the rows.

A query is cut into runs of letters and digits, each of which is quoted: no text can be a syntax error. A word that more
than half of the rows have weighs nothing in SQLite's BM25 and costs the most, so among many rows it is left out when
the query has another.
"""

import re
import sqlite3
from collections import Counter
from threading import Lock

from bartizan_connector.store.collection import Hit
from bartizan_connector.store.embedded.filters_sql import Condition
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.rows import Moment, count_to, hits

MAX_WORDS = 256
"""Different words of one query that are looked up."""
_WORD = re.compile(r"[^\W_]+")
_SPARE = 32
_GROWTH = 8
_MANY_ROWS = 1_000
_KNOWN = 50_000


class Words:
    """Searches one collection's words. Safe to share between threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = Lock()
        self._counts: dict[str, int] = {}
        """In how many rows a word was when it was first asked for."""
        self._rows = 0
        self._top = -1

    def search(
        self, connection: sqlite3.Connection, now: Moment, text: str, k: int, passing: Condition | None
    ) -> list[Hit]:
        """The k best rows by BM25, ties in order of (id, chunk)."""
        words = Counter(_WORD.findall(text.encode(errors="ignore").decode().lower())).most_common(MAX_WORDS)
        telling = self._telling(connection, now, [word for word, _ in words])
        match = " OR ".join(f'"{word}"' for word, times in words for _ in range(times) if word in telling)
        if not match:
            return []
        table, limit = self._layout.words, k + _SPARE
        sql, values = f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ?", [match]
        if passing is not None:
            joined = self._layout.joined(aside=passing.aside)
            sql += f" AND rowid IN (SELECT main.row FROM {joined} WHERE {passing.sql})"
            values += passing.values  # type: ignore[arg-type]
        while True:
            found = connection.execute(f"{sql} ORDER BY rank LIMIT ?", (*values, limit)).fetchall()
            if len(found) < limit or found[-1][1] < found[k - 1][1]:
                return hits(connection, self._layout, dict(found), k)
            limit *= _GROWTH

    def _telling(self, connection: sqlite3.Connection, now: Moment, words: list[str]) -> set[str]:
        """The words that can tell one row from another; all of them where there are few rows, or no such word."""
        if now.top < _MANY_ROWS or len(words) < 2:
            return set(words)
        with self._lock:
            if not self._top <= now.top <= self._top + self._rows // 10 or len(self._counts) > _KNOWN:
                self._counts, self._rows, self._top = {}, count_to(connection, self._layout, now.top), now.top
            rows, counts = self._rows, self._counts
        table = self._layout.words
        for word in words:
            if word not in counts:
                sql = f"SELECT count(*) FROM {table} WHERE {table} MATCH ?"
                counts[word] = connection.execute(sql, (f'"{word}"',)).fetchone()[0]
        return {word for word in words if 2 * counts[word] <= rows} or set(words)
