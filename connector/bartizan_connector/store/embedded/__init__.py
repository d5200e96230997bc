"""The embedded store: one SQLite file is the truth, and indexes in memory or beside it catch up with it."""

from bartizan_connector.store.embedded.backend import EmbeddedBackend

__all__ = ["EmbeddedBackend"]
