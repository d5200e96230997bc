"""Tantivy, or the line that installs it."""

from importlib.util import find_spec

from bartizan_connector.base.errors import missing_extra

if find_spec("tantivy") is None:
    raise missing_extra("tantivy", "milvus")

import tantivy

__all__ = ["tantivy"]
