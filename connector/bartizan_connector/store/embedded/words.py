"""The words of a collection: full text in the same file, written by the same transaction as the rows.

A query is cut into runs of letters and digits, each of which is quoted: no text can be a syntax error.
"""

import re
import sqlite3
from collections import Counter

from bartizan_connector.store.collection import Hit
from bartizan_connector.store.embedded.filters_sql import Condition
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.rows import hits

MAX_WORDS = 256
"""Different words of one query that are looked up."""
_WORD = re.compile(r"[^\W_]+")
_SPARE = 32
_GROWTH = 8


def match_of(text: str) -> str | None:
    """The text as a query for any of its words; None when it has none."""
    words = Counter(_WORD.findall(text.encode(errors="ignore").decode().lower())).most_common(MAX_WORDS)
    return " OR ".join(f'"{word}"' for word, times in words for _ in range(times)) or None


def search(connection: sqlite3.Connection, layout: Layout, text: str, k: int, passing: Condition) -> list[Hit]:
    """The k best rows by BM25, ties in order of (id, chunk)."""
    match = match_of(text)
    if match is None:
        return []
    table, limit = layout.words, k + _SPARE
    while True:
        sql = f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ?"
        if passing.sql != "1":
            sql += f" AND rowid IN (SELECT main.row FROM {layout.joined(aside=passing.aside)} WHERE {passing.sql})"
        found = connection.execute(f"{sql} ORDER BY rank LIMIT ?", (match, *passing.values, limit)).fetchall()
        if len(found) < limit or found[-1][1] < found[k - 1][1]:
            return hits(connection, layout, dict(found), k)
        limit *= _GROWTH
