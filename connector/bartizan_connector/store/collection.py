"""What is stored: a collection's contract, its rows, and what comes back from it."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bartizan_connector.space.spec import Kind, TowerSpec
from bartizan_connector.space.vectors import Vector

Scalar = str | int | float | bool
FieldType = Literal["string", "int", "float", "bool"]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}", name):
        raise ValueError(
            "must be a name of at most 60 letters (A to Z), digits and _, without a digit in front, "
            f"but {name!r:.80} came"
        )
    return name


Name = Annotated[str, AfterValidator(_checked_name)]

MAX_ID_BYTES = 512
MAX_STRING_BYTES = 65_535
"""The longest string that every back-end takes (Milvus' VARCHAR)."""
RESERVED_NAMES = frozenset({"pk", "id", "chunk", "version", "hash", "deleted", "score", "_id", "_version", "_deleted"})
"""Columns of every store, and the keys that steer a record."""


def new_physical_name(name: str) -> str:
    """What a back-end calls a collection of that name which it makes now; no other will ever be called so."""
    return f"{name}__{secrets.token_hex(4)}"


def is_physical_name(physical: object, name: str) -> bool:
    """Whether a collection of that name may have been made under this one."""
    return isinstance(physical, str) and re.fullmatch(rf"{re.escape(name)}__[0-9a-f]{{8}}", physical) is not None


def is_of_type(value: object, kind: FieldType) -> bool:
    """Whether every back-end can store a scalar in a field of that type (an int is a float, a bool is not an int)."""
    match kind:
        case "string":
            return isinstance(value, str) and _is_unicode(value)
        case "bool":
            return isinstance(value, bool)
        case "int":  # Milvus cannot read the literal -2**63
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        case "float":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return abs(value) < 1.7e308 and float(value) == value  # no infinity, no NaN, no int between two doubles


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which no UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class FieldSpec(BaseModel):
    """A typed scalar that a filter may use. Without a default, a record that lacks it is rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    type: FieldType
    default: Scalar | None = None

    @model_validator(mode="after")
    def _default_is_of_its_type(self) -> Self:
        if self.default is not None and not is_of_type(self.default, self.type):
            raise ValueError(
                f"the default of '{self.name}' must be of type {self.type}, but {self.default!r:.80} came; "
                "give one of that type, or leave it out"
            )
        return self


class Leg(BaseModel):
    """One way to search a collection, bound to one space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Kind
    dim: Annotated[int, Field(ge=1)]
    space_id: str

    @classmethod
    def of(cls, spec: TowerSpec, name: str | None = None) -> Self:
        """The leg that takes this tower's vectors."""
        return cls(name=name or spec.kind, kind=spec.kind, dim=spec.dim, space_id=spec.space_id)


class Collection(BaseModel):
    """A named set of rows: the legs they can be searched by, the fields they carry. Stored with the data, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    legs: Annotated[tuple[Leg, ...], Field(min_length=1)]
    fields: tuple[FieldSpec, ...] = ()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [leg.name for leg in self.legs] + [spec.name for spec in self.fields]
        taken = sorted({name for name in names if name in RESERVED_NAMES or names.count(name) > 1})
        if taken:
            raise ValueError(f"these names are reserved or used twice: {', '.join(taken)}")
        return self

    def leg(self, name: str) -> Leg:
        """The leg of that name."""
        for leg in self.legs:
            if leg.name == name:
                return leg
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One chunk of one document as it is stored. All chunks of a document are written together; the field `text` of
    each is its own part of the document's, and the parts, joined in their order, are the whole."""

    id: str
    chunk: int = 0
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """Leg → vector; empty in rows that were read without them."""
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    version: int
    hash: str
    origin: str = ""
    offset: int = 0

    @property
    def head(self) -> "Head":
        """What is remembered of the id once this row is stored."""
        return Head(id=self.id, version=self.version, hash=self.hash, origin=self.origin, offset=self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a collection knows of one id: its newest version, the hash of what was encoded, whether it is deleted."""

    id: str
    version: int
    hash: str = ""
    deleted: bool = False
    origin: str = ""
    """Where the newest change came from, and its place there; empty: from where versions alone tell what is newer."""
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """All rows of one id, by rising chunk number, and its head, whose version and hash the rows that are read carry."""

    id: str
    rows: tuple[Row, ...]
    head: Head

    @property
    def fields(self) -> dict[str, Scalar]:
        """What was given: the fields that all rows share, and the whole text, of which each row has its own part."""
        fields = dict(self.rows[0].fields)
        if len(self.rows) > 1 and "text" in fields:
            fields["text"] = "".join(str(row.fields["text"]) for row in self.rows)
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One row that a leg found; a bigger score is better."""

    id: str
    chunk: int
    score: float
    fields: Mapping[str, Scalar]
