"""Rows as the word index keeps them: the id, the words, and the row itself for the hit."""

import json
from collections.abc import Mapping
from typing import Any

from bartizan_connector.search.words.analysis import ANALYZER, clean
from bartizan_connector.search.words.engine import tantivy
from bartizan_connector.store.collection import Hit, Row


def schema() -> tantivy.Schema:
    """What an index holds of each row."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name=ANALYZER, index_option="freq")
    builder.add_bytes_field("row", stored=True, indexed=False)
    return builder.build()


def document_of(row: Row) -> tantivy.Document:
    """The row, its title and text by their words."""
    stored = {"id": row.id, "chunk": row.chunk, "hash": row.hash, "fields": dict(row.fields)}
    document = tantivy.Document()
    document.add_text("id", row.id)
    document.add_text("words", clean(f"{row.fields.get('title', '')} {row.fields.get('text', '')}"))
    document.add_bytes("row", json.dumps(stored).encode())
    return document


def stored_at(searcher: tantivy.Searcher, address: tantivy.DocAddress) -> dict[str, Any]:
    """The row that stands there."""
    row: dict[str, Any] = json.loads(bytes(searcher.doc(address)["row"][0]))
    return row


def hit_of(row: Mapping[str, Any], score: float) -> Hit:
    """A stored row as a result."""
    return Hit(id=row["id"], chunk=row["chunk"], score=score, fields=row["fields"])
