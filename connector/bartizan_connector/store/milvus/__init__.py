"""Rows in Milvus: a Milvus Lite file or a server, by the same configuration."""

from importlib.util import find_spec

from bartizan_connector.base.errors import missing_extra

if find_spec("pymilvus") is None:
    raise missing_extra("pymilvus", "milvus")

from bartizan_connector.store.milvus.backend import MilvusBackend

__all__ = ["MilvusBackend"]
