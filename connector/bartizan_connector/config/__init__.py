"""`bartizan.toml`: one file for ingest, search, serve and doctor, and the towers that it names."""

from bartizan_connector.config.file import Config

__all__ = ["Config"]
