"""`bartizan.toml`, read once into frozen values.

Every key can be overridden from the environment: `BARTIZAN__BACKEND__URI=…` sets `[backend] uri`. Unknown keys are
refused, in the file and in the environment. Secrets come from the environment or from a file, and are never printed.
Relative paths are relative to the file they stand in.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.base.tables import Table, Text, check, read_toml
from bartizan_connector.config.settings import (
    LEXICAL,
    TEXT_FIELDS,
    ChunkSettings,
    CollectionSettings,
    IngestSettings,
    SearchSettings,
    SourceSettings,
    SpaceSettings,
)
from bartizan_connector.encode.settings import AnyEncoder, EncoderSettings, OnnxSettings
from bartizan_connector.store.collection import RESERVED_NAMES, Name
from bartizan_connector.store.settings import BackendSettings

log = logging.getLogger(__name__)
ENVIRONMENT_PREFIX = "BARTIZAN__"
_BY_ROLE = ("document", "query")
"""Encoders that need no table: without one, the tower is run by ONNX Runtime in this process."""


class Config(Table):
    """The whole file."""

    collection: CollectionSettings
    spaces: Annotated[dict[Name, SpaceSettings], Field(min_length=1)]
    encoders: dict[str, AnyEncoder] = Field(default_factory=dict)
    backend: BackendSettings = BackendSettings()
    search: SearchSettings = SearchSettings()
    chunks: ChunkSettings | None = None
    """None: a document is one row, of which a tower reads the beginning."""
    source: SourceSettings | None = None
    ingest: IngestSettings = IngestSettings()

    @classmethod
    def load(cls, path: AnyPath, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the file, lay the environment over it, check every key."""
        path = as_path(path, "the configuration")
        tables = read_toml(path, "configuration")
        origins = {}
        for name, value in environment.items():
            if name.startswith(ENVIRONMENT_PREFIX):
                origins[_overlay(tables, name, value)] = name
            elif meant := _meant(name, cls.model_fields):
                log.warning("%s sets nothing: keys are parted by two underscores; did you mean %s?", name, meant)
        set_there = f"; set by the environment: {', '.join(origins.values())}" if origins else ""
        log.info("the configuration is %s%s", path, set_there)
        return check(cls, tables, path, origins=origins)._beside(path.parent)

    def encoder(self, name: str) -> EncoderSettings:
        """How the towers that name this encoder are run."""
        return self.encoders.get(name) or OnnxSettings()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for leg, space in self.spaces.items():
            if leg == LEXICAL:
                raise ValueError(f"spaces.{leg}: that name is the word search's; call the space otherwise")
            if leg in RESERVED_NAMES or leg in {spec.name for spec in TEXT_FIELDS}:
                raise ValueError(f"spaces.{leg}: Bartizan keeps that name for itself; call the space otherwise")
            for role in ("document", "query"):
                named = getattr(space, f"{role}_encoder")
                if named not in self.encoders and named not in _BY_ROLE:
                    known = ", ".join(sorted({*self.encoders, *_BY_ROLE}))
                    raise ValueError(
                        f"spaces.{leg}.{role}_encoder: there is no table [encoders.{named}]; there are {known}"
                    )
        legs = [*self.spaces, LEXICAL]
        for leg in self.search.weights:
            if leg not in legs:
                raise ValueError(f"search.weights.{leg}: there is no such leg; there are {', '.join(legs)}")
        for leg in self.backend.indexes:
            if leg not in self.spaces:
                raise ValueError(f"backend.indexes.{leg}: there is no such leg; there are {', '.join(self.spaces)}")
        names = {spec.name for spec in self.collection.fields}
        for leg in self.spaces:
            if leg in names:
                raise ValueError(f"spaces.{leg}: a field of the collection has that name; rename one of them")
        return self

    def _beside(self, folder: Path) -> Self:
        return self.model_copy(
            update={
                "spaces": {leg: space.beside(folder) for leg, space in self.spaces.items()},
                "encoders": {name: table.beside(folder) for name, table in self.encoders.items()},
                "backend": self.backend.beside(folder),
                "source": self.source and self.source.beside(folder),
            }
        )


def _meant(name: str, tables: Iterable[str]) -> str | None:
    """The variable that was probably meant by one whose underscores are single, if it begins as a table does."""
    for table in tables:
        beginning = f"BARTIZAN_{table.upper()}_"
        if name.startswith(beginning):
            return f"{ENVIRONMENT_PREFIX}{table.upper()}__{name.removeprefix(beginning).lstrip('_')}"
    return None


def _overlay(tables: dict[str, Any], name: str, value: str) -> tuple[str, ...]:
    """Set one key from the environment, and say which; lists and tables are given as JSON."""
    keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    table = tables
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise WrongUse(f"{name}: '{key}' is a value, not a table")
    if value[:1] in ("[", "{"):
        try:
            table[keys[-1]] = json.loads(value)
        except json.JSONDecodeError as error:
            raise WrongUse(f"{name}: expected JSON, {error}") from error
    else:
        table[keys[-1]] = Text(value)
    return tuple(keys)
