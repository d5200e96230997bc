"""`bartizan.toml`: one file for ingest, search and doctor, read once into frozen values.

Every key can be overridden from the environment: `BARTIZAN__BACKEND__URI=…` sets `[backend] uri`. Unknown keys are
refused, in the file and in the environment. Secrets come from the environment or from a file, and are never printed.
Relative paths are relative to the file they stand in.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SecretStr, field_validator, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table, check, read_toml
from bartizan_connector.search.fusion import Fusion
from bartizan_connector.space.spec import Kind
from bartizan_connector.store.collection import RESERVED_NAMES, FieldSpec, Name

ENVIRONMENT_PREFIX = "BARTIZAN__"
TEXT_FIELDS = (
    FieldSpec(name="title", type="string", default=""),
    FieldSpec(name="text", type="string", default=""),
)
"""What every configured collection stores beside its own fields: hits show it; a new tower is filled from it."""


class SpaceConfig(Table):
    """What is searched: a collection and the towers of its one space."""

    collection: Name
    document_tower: Path
    query_tower: Path | None = None
    """The small tower that answers queries; the document tower when absent."""
    space_id: str | None = None
    """Pin the space: towers of any other are refused."""
    fields: tuple[FieldSpec, ...] = ()
    """Typed fields beside `title` and `text`, for filters."""

    @field_validator("fields")
    @classmethod
    def _names_are_free(cls, fields: tuple[FieldSpec, ...]) -> tuple[FieldSpec, ...]:
        built_in = {spec.name for spec in TEXT_FIELDS}
        names = [spec.name for spec in fields]
        for name in names:
            if name in built_in:
                raise ValueError(f"'{name}' is stored without being declared; leave it out")
            if name in RESERVED_NAMES or name in get_args(Kind):
                raise ValueError(f"Bartizan keeps the name '{name}' for itself; give the field another one")
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is declared twice; keep one of them")
        return fields


class EncoderConfig(Table):
    """How texts are encoded."""

    engine: str = "onnx"
    """`onnx` (in process, no torch) or `torch`; others by entry point."""
    document_engine: str | None = None
    """The same for documents alone: a tower too large to export is run by `torch`, its small query tower by `onnx`."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads for one batch; 0: all cores."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens encoded at once, padding included; none: what suits the engine and where it runs."""


class BackendConfig(Table):
    """Where rows are stored and searched."""

    kind: Literal["milvus", "memory"] = "milvus"
    uri: str = "bartizan.db"
    """A Milvus Lite file (`index.db`) or a server (`http://host:19530`)."""
    token: SecretStr | None = None
    token_file: Path | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    consistency: Literal["Strong", "Session", "Bounded", "Eventually"] = "Bounded"
    index: Literal["auto", "flat", "hnsw"] = "auto"
    lexical: Path | None = None
    """Folder of the word index; without it there is no lexical leg."""
    lexical_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How much the lexical leg counts in the fusion, where every other leg counts 1."""
    fusion: Fusion = "rrf"
    """How legs become one list: by ranks (`rrf`) or by `scores`."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.token and self.token_file:
            raise ValueError("give token or token_file, not both")
        return self

    def secret(self) -> str | None:
        """The server's token, read where it is needed and never kept elsewhere."""
        if self.token_file:
            try:
                return self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise WrongUse(f"cannot read [backend] token_file {self.token_file}: {error.strerror}") from error
        return self.token.get_secret_value() if self.token else None


class SourceConfig(Table):
    """Where documents come from."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    dead_letters: Path | None = None
    """Lines that cannot be written go here with the reason; default: `<path>.dead.jsonl`."""
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 256


class Config(Table):
    """The whole file."""

    space: SpaceConfig
    encoder: EncoderConfig = EncoderConfig()
    backend: BackendConfig = BackendConfig()
    source: SourceConfig | None = None

    @classmethod
    def load(cls, path: Path, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the file, lay the environment over it, check every key."""
        tables = read_toml(path, "configuration")
        origins = {}
        for name, value in environment.items():
            if name.startswith(ENVIRONMENT_PREFIX):
                origins[_overlay(tables, name, value)] = name
        return check(cls, tables, path, origins=origins)._with_paths_from(path.parent)

    def _with_paths_from(self, folder: Path) -> Self:
        space, backend, source = self.space, self.backend, self.source
        space = space.model_copy(
            update={
                "document_tower": folder / space.document_tower,
                "query_tower": space.query_tower and folder / space.query_tower,
            }
        )
        is_file = backend.kind == "milvus" and "://" not in backend.uri
        backend = backend.model_copy(
            update={
                "uri": str(folder / backend.uri) if is_file else backend.uri,
                "token_file": backend.token_file and folder / backend.token_file,
                "lexical": backend.lexical and folder / backend.lexical,
            }
        )
        if source:
            source = source.model_copy(
                update={
                    "path": folder / source.path,
                    "dead_letters": source.dead_letters and folder / source.dead_letters,
                }
            )
        return self.model_copy(update={"space": space, "backend": backend, "source": source})


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
        table[keys[-1]] = value
    return tuple(keys)
