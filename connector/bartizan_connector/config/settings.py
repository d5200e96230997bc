"""The tables of `bartizan.toml` that say what is stored, how it is searched, and where documents come from."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from bartizan_connector.base.tables import Table, Unfit
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.space.spec import Role
from bartizan_connector.store.collection import RESERVED_NAMES, FieldSpec, Name
from bartizan_connector.store.settings import Seconds

TEXT_FIELDS = (
    FieldSpec(name="title", type="string", default=""),
    FieldSpec(name="text", type="string", default=""),
)
"""What every configured collection stores beside its own fields: hits show it; a new tower is filled from it."""
LEXICAL = "lexical"
"""The name of the leg that searches words; no space can have it."""

Fusion = Literal["rrf", "scores"]
"""By ranks: 1 / (60 + rank), whatever the scores. By scores: each leg's best hit counts 1, its last one 0."""
OfDocument = Literal["max", "first"]
"""What counts of a document in several chunks: its best chunk, or its first one alone."""
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CollectionSettings(Table):
    """`[collection]`: what is stored."""

    name: Name
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
            if name in RESERVED_NAMES:
                raise ValueError(f"Bartizan keeps the name '{name}' for itself; give the field another one")
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is declared twice; keep one of them")
        return fields


class SpaceSettings(Table):
    """`[spaces.NAME]`: the towers of one space. Each space is a leg of the collection, of that name."""

    document_tower: Path
    query_tower: Path | None = None
    """The small tower that answers queries; the document tower when absent."""
    space_id: str | None = None
    """Pin the space: towers of any other are refused."""
    document_encoder: str = "document"
    """Which table under [encoders] runs the document tower."""
    query_encoder: str = "query"
    """Which table under [encoders] runs the query tower."""

    def tower(self, role: Role) -> Path:
        """The folder of the tower that plays `role`."""
        return self.document_tower if role == "document" else self.query_tower or self.document_tower

    def encoder(self, role: Role) -> str:
        """The name of the table that says how that tower is run."""
        return self.document_encoder if role == "document" else self.query_encoder

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`."""
        update = {"document_tower": folder / self.document_tower}
        if self.query_tower:
            update["query_tower"] = folder / self.query_tower
        return self.model_copy(update=update)


class SearchSettings(Table):
    """`[search]`: how legs become one list."""

    fusion: Fusion = "rrf"
    """By ranks (`rrf`) or by `scores`."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """How much each leg counts, by name (`lexical` is the words'); 1 where nothing is said."""
    of_document: OfDocument = "max"
    """What counts of a document in chunks: the best of them (`max`), or the `first` alone."""
    timeout: Seconds = 30.0
    """Deadline of one search, in seconds."""


class ChunkSettings(Table):
    """`[chunks]`: how a document that is longer than a tower reads becomes several rows."""

    tokens: Annotated[int, Field(ge=8)] | None = None
    """The most tokens of a chunk, its title and what it overlaps with among them; default: what the towers read."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Tokens before a chunk that the towers read with it."""
    at: Literal["sentence", "token"] = "sentence"
    """Where a text is cut: at the ends of sentences, where they allow it; or at any token."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if self.tokens is not None and self.overlap > self.tokens // 2:
            raise ValueError(
                f"overlap = {self.overlap} is more than half of tokens = {self.tokens}; give at most {self.tokens // 2}"
            )
        return self


class JsonlSettings(Table):
    """`[source] kind = "jsonl"`: documents from JSON Lines files."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    """A file, or a folder of `*.jsonl` files."""
    dead_letters: Path | None = None
    """Lines that cannot be written go here with the reason; default: `<path>.dead.jsonl`."""
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 256

    @property
    def place(self) -> str:
        """What is read, for people."""
        return str(self.path)

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`."""
        update = {"path": folder / self.path}
        if self.dead_letters:
            update["dead_letters"] = folder / self.dead_letters
        return self.model_copy(update=update)


class IngestSettings(Table):
    """`[ingest]`: how a run goes on, what it tells, and when it counts as failed although it came to its end."""

    fail_above: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the lines that may be stale or dead, once there are many of them; 1: any."""
    batch_seconds: Annotated[Seconds, Field(ge=0.1)] = 5.0
    """What a batch shall take; its size follows, up to [source] batch_size."""
    listen: str | None = None
    """`host:port` at which metrics and health are told while a run goes on."""
    nice: Annotated[int, Field(ge=0, le=19)] = 0
    """How far `bartizan ingest` stands back for other programs that want the processors, as in the command `nice`."""

    @field_validator("listen")
    @classmethod
    def _is_address(cls, listen: str | None) -> str | None:
        if listen is not None and not is_address(listen):
            raise ValueError(f"must be host:port, such as 127.0.0.1:9095, but {listen!r:.80} came")
        return listen


def is_address(text: str) -> bool:
    """Whether it is `host:port`; a host with colons stands in brackets."""
    return re.fullmatch(r"([^\s/:]+|\[[0-9a-fA-F:]+\]):\d{1,5}", text) is not None


def _picked(table: object) -> object:
    """The table as the settings of the kind that it names."""
    if not isinstance(table, Mapping):
        return table
    kind = table.get("kind", "jsonl")
    model = _SOURCES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ValueError(f"unknown kind {kind!r:.80}; known: {', '.join(_SOURCES)}")
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise Unfit(model, error) from error


_SOURCES: Mapping[str, type[JsonlSettings] | type[KafkaSettings]] = {"jsonl": JsonlSettings, "kafka": KafkaSettings}
SourceSettings = Annotated[JsonlSettings | KafkaSettings, BeforeValidator(_picked)]
"""Every kind of source, told apart by `kind`."""
