"""`bartizan.toml`: one file for ingest, search, eval and doctor, and the towers that it names."""

from bartizan_connector.config.file import Config

__all__ = ["Config"]
