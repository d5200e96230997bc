"""One raw message → one change: a document to put, or an id to remove.

A record is a JSON object: `_id` (or `id`), `title`, `text`, the collection's declared fields, and, where wanted,
`_version` (an int of your own that grows with each change of the id) and `_deleted` (true removes the id).
A key that is null counts as absent. Keys that steer begin with an underscore, so an unknown one is a typo and the
record is refused; any other key that the collection does not declare is real data of somebody else: it is not stored,
and the report names it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from bartizan_connector.base.errors import Reject
from bartizan_connector.space.canonical import digest_of
from bartizan_connector.store.collection import (
    MAX_ID_BYTES,
    MAX_STRING_BYTES,
    Collection,
    FieldSpec,
    Scalar,
    is_of_type,
)
from bartizan_connector.stream.source import Message

_HASH_DOMAIN = "bartizan.record/1"
_STEERING = frozenset({"_id", "_version", "_deleted"})
_KNOWN = _STEERING | {"id", "title", "text"}
_JSON_NAMES = {"str": "string", "dict": "object", "NoneType": "null"}
_SHOWN_CHARS = 60
MAX_KEYS = 10_000
"""The most keys of one object; nobody's record has more, and each costs time and memory in several places."""
MAX_TEXT_BYTES = 4 * 2**20
"""The longest text that is cut into chunks; it is tokenised whole, in some 300 times its size."""
Boundary = Literal["sentence", "token"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text is cut into chunks; a head's hash tells it of what is stored."""

    tokens: int
    """The most tokens of a chunk as the tower reads it: its title and what it overlaps with count."""
    overlap: int
    """Tokens before a chunk that the tower reads with it."""
    at: Boundary

    @classmethod
    def of_hash(cls, hash: str) -> Self | None:
        """How the content of that hash was cut; None where it was not, or where somebody else made the hash."""
        found = _CUT.fullmatch(hash)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), "token" if found[3] == "token" else "sentence")

    def __str__(self) -> str:
        return f"{self.tokens}.{self.overlap}.{self.at}"


_CUT = re.compile(r"[0-9a-f]{64}\.(\d{1,9})\.(\d{1,9})\.(sentence|token)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A document as it shall be from this version on."""

    id: str
    title: str = ""
    text: str
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    """What is stored beside the vectors: every declared field, `title` and `text` among them where declared."""
    version: int
    origin: str = ""
    """The message's, unless the version is the record's own."""
    offset: int = 0
    late: bool = field(default=False, compare=False)
    """The message's."""
    undeclared: tuple[str, ...] = field(default=(), compare=False)
    """Keys of the record that the collection has no field for; not stored."""
    cut: Cut | None = None
    """How it is cut into chunks; None: it is one row, whatever its length."""
    hash: str = field(init=False, compare=False)
    """Equal exactly when what is encoded and stored is equal: the content's digest, and how it is cut."""

    def __post_init__(self) -> None:
        facts = {"title": self.title, "text": self.text, "fields": dict(self.fields)}
        digest = digest_of(facts, domain=_HASH_DOMAIN)
        object.__setattr__(self, "hash", digest if self.cut is None else f"{digest}.{self.cut}")

    @property
    def encoded(self) -> str:
        """What the document tower reads."""
        return text_of(self.title, self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """An id that shall be gone from this version on."""

    id: str
    version: int
    origin: str = ""
    offset: int = 0
    late: bool = field(default=False, compare=False)


Change = Put | Remove


def text_of(title: str, text: str) -> str:
    """A document's text for the tower: title, one space, text."""
    return f"{title} {text}".strip()


def decode(message: Message, collection: Collection, cut: Cut | None = None) -> Change:
    """Read one message; what can never be written raises Reject with the precise reason. `cut`: how texts are cut."""
    if message.fault is not None:
        raise _refusal(message.fault)
    if message.value is None:
        if message.key is None:
            raise _refusal("a message without a value deletes its key, but it has no key either")
        place = _place_of({}, message)
        return _remove(_checked_id(message.key), place)
    record = _object_in(message.value)
    _refuse_unknown_steering(record)
    id = _id_of(record, message.key)
    place = _place_of(record, message)
    deleted = record.get("_deleted", False)
    if not isinstance(deleted, bool):
        raise _refusal(f"'_deleted' must be true or false, got {_show(deleted)}")
    if deleted:
        return _remove(id, place)
    return _put(id, place, record, collection.fields, cut)


def _remove(id: str, place: "_Place") -> Remove:
    return Remove(id=id, version=place.version, origin=place.origin, offset=place.offset, late=place.late)


def _put(id: str, place: "_Place", record: Mapping[str, Any], specs: Sequence[FieldSpec], cut: Cut | None) -> Put:
    title = _checked_string("title", record.get("title", ""))
    if "text" not in record:
        raise _refusal("'text' is missing")
    text = _checked_string("text", record["text"], MAX_STRING_BYTES if cut is None else MAX_TEXT_BYTES)
    if not text_of(title, text):
        raise _refusal("title and text are both empty: there is nothing to encode")
    fields = {
        spec.name: text if (spec.name, spec.type) == ("text", "string") else _field(spec, record) for spec in specs
    }
    undeclared = tuple(_printable(key) for key in record if key not in fields and key not in _KNOWN)
    return Put(
        id=id,
        title=title,
        text=text,
        fields=fields,
        version=place.version,
        origin=place.origin,
        offset=place.offset,
        late=place.late,
        undeclared=undeclared,
        cut=cut,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """What tells whether a change is newer than another."""

    version: int
    origin: str = ""
    offset: int = 0
    late: bool = False


def _place_of(record: Mapping[str, Any], message: Message) -> _Place:
    """The message's place, or, for a record with a version of its own, that alone."""
    if "_version" in record:
        return _Place(_checked_version(record["_version"]), late=message.late)
    return _Place(_checked_version(message.version), message.origin, message.offset, message.late)


def _field(spec: FieldSpec, record: Mapping[str, Any]) -> Scalar:
    value = record.get(spec.name, spec.default)
    if value is None:
        raise _refusal(f"the field '{spec.name}' ({spec.type}) is missing and has no default")
    if not is_of_type(value, spec.type):
        raise _refusal(f"the field '{spec.name}' must be of type {spec.type}, got {_show(value)}")
    if spec.type == "string":
        return _checked_string(spec.name, value)
    # 2 and 2.0 are one value of a float field: one spelling, one hash.
    return float(value) if spec.type == "float" else value


def _object_in(value: bytes) -> dict[str, Any]:
    """The JSON object in these bytes, without the keys that are null."""
    try:
        text = value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(f"not UTF-8: byte 0x{value[error.start]:02x} at {error.start + 1} ({error.reason})") from error
    try:
        record = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        hint = "; the line ends in the middle: was the file cut off, or is it still being written?" if cut else ""
        raise _refusal(f"not JSON: {error.msg} at character {error.pos + 1}{hint}") from error
    except RecursionError as error:
        raise _refusal("not a record: the JSON is nested too deeply") from error
    except ValueError as error:  # an integer with more digits than Python reads
        raise _refusal(f"not JSON that can be read: {error}") from error
    if not isinstance(record, dict):
        raise _refusal(f"expected a JSON object, got {_show(record)}")
    return {key: value for key, value in record.items() if value is not None}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise _refusal(f"an object of {len(pairs):,} keys; at most {MAX_KEYS:,} are read")
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise _refusal(f"the key '{_printable(key)}' occurs twice")
        record[key] = value
    return record


def _refuse_constant(name: str) -> None:
    raise _refusal(f"{name} is not JSON")


def _refuse_unknown_steering(record: Mapping[str, Any]) -> None:
    for key in record:
        if key.startswith("_") and key not in _STEERING:
            known = ", ".join(sorted(_STEERING))
            raise _refusal(f"unknown key '{_printable(key)}': keys that begin with an underscore are {known}")


def _id_of(record: Mapping[str, Any], key: str | None) -> str:
    """The one id that the record and its key agree on."""
    ids = {_checked_id(record[name]) for name in ("_id", "id") if name in record}
    if key is not None:
        ids.add(_checked_id(key))
    if len(ids) > 1:
        raise _refusal(f"more than one id: {', '.join(sorted(map(_printable, ids)))}")
    if not ids:
        raise _refusal("the id is missing: give '_id'")
    return ids.pop()


def _checked_id(id: object) -> str:
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str):
        raise _refusal(f"the id must be a string (or an int), got {_show(id)}")
    if not id:
        raise _refusal("the id is empty")
    if (size := _utf8_size("id", id)) > MAX_ID_BYTES:
        raise _refusal(f"the id has {size:,} bytes; at most {MAX_ID_BYTES} are taken")
    return id


def _checked_version(version: object) -> int:
    if isinstance(version, int) and is_of_type(version, "int") and version >= 0:
        return version
    raise _refusal(f"the version must be an int from 0 to 2**63 - 1, got {_show(version)}")


def _checked_string(name: str, value: object, most: int = MAX_STRING_BYTES) -> str:
    if not isinstance(value, str):
        raise _refusal(f"'{name}' must be a string, got {_show(value)}")
    if (size := _utf8_size(name, value)) > most:
        way_out = "split the document, or set [chunks]" if (name, most) == ("text", MAX_STRING_BYTES) else "split it"
        raise _refusal(f"'{name}' has {size:,} bytes; at most {most:,} can be stored: {way_out}")
    return value


def _utf8_size(name: str, value: str) -> int:
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        raise _refusal(
            f"'{name}' holds half a character (the surrogate {value[error.start]!r}), which is not valid Unicode"
        ) from error


def _show(value: object) -> str:
    kind = _JSON_NAMES.get(type(value).__name__, type(value).__name__)
    return kind if isinstance(value, dict | list) or value is None else f"the {kind} {_shorten(repr(value))}"


def _printable(text: str) -> str:
    """At most a line of it, with half characters spelt out: a reason must survive being written down."""
    return _shorten(text.encode("utf-8", "backslashreplace").decode())


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _refusal(reason: str) -> Reject:
    return Reject((), reason)
