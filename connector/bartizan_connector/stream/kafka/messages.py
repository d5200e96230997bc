"""One record of a topic → one message: its place, its version, and what its decoder makes of key and value.

A record's headers may say `bartizan.schema`, the number of the form its value is in (docs/ingest.md describes form 1),
so that a producer of tomorrow is told apart from a broken one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bartizan_connector.base.errors import Reject, WrongUse
from bartizan_connector.stream.source import Message
from bartizan_connector.stream.versions import NUMBER_BITS, stamp

Decoder = Callable[[bytes | None, bytes | None], tuple[str | None, bytes | None]]
"""A record's key and value, as they came, → the document's id (None: the value holds it) and the value as
docs/ingest.md describes it (None: deleted). What can never be read raises Reject with the reason."""
GROUP = "bartizan.decoders"
SCHEMA_HEADER, SCHEMA = "bartizan.schema", "1"
_SEQUENCE = (1 << NUMBER_BITS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaMessage(Message):
    """A message that still has its record, for the dead letters: the original bytes, key and headers."""

    record: Any = field(compare=False, repr=False)
    stamped: int = 0
    sequence: str = ""
    """The version and the origin of the record's place, whatever version it has of its own."""


def plain(key: bytes | None, value: bytes | None) -> tuple[str | None, bytes | None]:
    """The key is the id, the value is the record."""
    return text_of(key), value


def text_of(key: bytes | None) -> str | None:
    """A key as text."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise Reject((), f"the key is not UTF-8: byte 0x{key[error.start]:02x} at {error.start + 1}") from error


def decoder(name: str) -> Decoder:
    """The decoder of that name."""
    known = _decoders()
    if name not in known:
        raise WrongUse(f"[source] decoder = {name!r:.80}: there is none of that name; there are {', '.join(known)}")
    found: Decoder = known[name].load()
    return found


@cache
def _decoders() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def message_of(
    record: Any,
    *,
    origin: str,
    decode: Decoder,
    version_header: str | None = None,
    stamped: int | None = None,
    doubtful: bool = False,
) -> KafkaMessage:
    """The record as a message. What is wrong with it is its fault, and told when its turn comes. `stamped`: the version
    that its place had when it was read before."""
    headers = {name: value or b"" for name, value in record.headers}
    milliseconds = max(0, record.timestamp)
    version = stamp(milliseconds, record.offset & _SEQUENCE) if stamped is None else stamped
    facts: dict[str, Any] = {
        "position": f"{record.topic}[{record.partition}]@{record.offset}",
        "value": record.value,
        "version": version,
        "stamped": version,
        "sequence": origin,
        "origin": origin,
        "offset": record.offset,
        "headers": headers,
        "timestamp": milliseconds / 1000 if record.timestamp >= 0 else None,
        "doubtful": doubtful,
        "record": record,
    }
    try:
        _require_schema(headers)
        if version_header is not None and version_header in headers:
            facts |= {"version": _version_in(version_header, headers[version_header]), "origin": "", "offset": 0}
        facts["key"], facts["value"] = decode(record.key, record.value)
    except Reject as error:
        facts["fault"] = error.reason
    return KafkaMessage(**facts)


def _require_schema(headers: Mapping[str, bytes]) -> None:
    came = headers.get(SCHEMA_HEADER, SCHEMA.encode()).decode(errors="backslashreplace")
    if came != SCHEMA:
        raise Reject((), f"the header {SCHEMA_HEADER} says form {came!r:.40}; this release reads form {SCHEMA}")


def _version_in(name: str, value: bytes) -> int:
    if not (value.isdigit() and len(value) <= 19 and int(value) < 2**63):
        raise Reject((), f"the header '{name}' must hold an int from 0 to 2**63 - 1 in digits, got {value[:40]!r}")
    return int(value)
