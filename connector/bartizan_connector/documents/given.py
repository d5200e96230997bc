"""A source of what a program gives: dictionaries, ids or messages, batch by batch, each refusal kept with its place."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.documents.outcome import Refusal
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.fence import sequence
from bartizan_connector.stream.jsonl import lines_of
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.versions import stamp

_BATCH = 256
_KEPT_CHARS = 1024


class Session:
    """One program's changes, in the order in which it makes them: what is given now is newer than all that is stored,
    but for a `_version` of the record's own."""

    def __init__(self, kind: str) -> None:
        self._origin = f"{kind}#{uuid4().hex[:16]}"
        self._lock = Lock()
        self._version = 0
        self._offset = 0

    def message(self, number: int, value: bytes | None, *, key: str | None = None, fault: str | None = None) -> Message:
        """The next change."""
        with self._lock:
            self._offset += 1
            self._version = max(self._version + 1, stamp(int(time.time() * 1000)))
            return Message(
                position=str(number),
                value=value,
                key=key,
                version=self._version,
                origin=self._origin,
                offset=self._offset,
                fault=fault,
            )

    def puts(self, documents: Iterable[Mapping[str, Any] | str | bytes]) -> Iterator[Message]:
        """Each document: a dictionary, or one as JSON."""
        for number, document in enumerate(documents):
            value, fault = _encoded(document)
            yield self.message(number, value, fault=fault)

    def removals(self, ids: Iterable[str | int]) -> Iterator[Message]:
        """Each id that shall be gone."""
        for number, id in enumerate(ids):
            if isinstance(id, str):
                yield self.message(number, None, key=id)
            else:
                value, fault = _encoded({"_id": id, "_deleted": True})
                yield self.message(number, value, fault=fault)

    def removal_after(self, number: int, head: Head) -> Message:
        """That this id, as it is stored, shall be gone. Whatever comes after by the stored change's own order (a later
        state of its file, a higher version of its own) brings it back."""
        message = self.message(number, None, key=head.id)
        if not head.origin:
            return replace(message, version=min(head.version + 1, 2**63 - 1), origin="", offset=0)
        return replace(message, origin=f"{sequence(head.origin)}#{message.origin.partition('#')[2]}")


class GivenSource:
    """A Source of messages at hand."""

    dead_letters = "the outcome's refusals"

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self._refused: list[Refusal] = []
        self.ended = False

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """By the place among what was given."""
        return tuple(sorted(self._refused, key=lambda refusal: refusal.number))

    def backlog(self) -> int | None:
        return None

    def poll(self, timeout: float) -> Batch | None:
        messages = tuple(islice(self._messages, _BATCH))
        self.ended = len(messages) < _BATCH
        return Batch(messages=messages) if messages else None

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        """Nothing to remember: what is given is given once."""

    def dead_letter(self, message: Message, reason: str) -> None:
        self._refused.append(Refusal(number=int(message.position), reason=reason))

    def close(self) -> None:
        """Nothing to let go of."""


def several(values: object, what: str, example: str) -> Iterable[Any]:
    """The values, once they are found to be several: a single one, whose keys or letters would be taken for them, is
    refused."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise WrongUse(f"expected {what}, but {values!r:.80} ({type(values).__name__}) came; give {example}")
    return values


def _encoded(document: object) -> tuple[bytes, str | None]:
    """The document as JSON, and why it is none, if so."""
    if isinstance(document, bytes):
        return document, None
    if isinstance(document, str):
        return document.encode(errors="surrogatepass"), None
    try:
        return json.dumps(dict(document) if isinstance(document, Mapping) else document, default=_plain).encode(), None
    except (TypeError, ValueError, RecursionError) as error:
        return repr(document)[:_KEPT_CHARS].encode(errors="backslashreplace"), f"not a record: {error}"


def _plain(value: Any) -> Any:
    """A number or a truth of numpy's as Python's own."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        return item()
    raise TypeError(f"{type(value).__name__} is no JSON value; give a string, a number or a bool")


def lines_of_file(file: str) -> Iterator[bytes]:
    """The lines of a file of JSON lines that are not blank; - is standard input."""
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            for line in lines_of(stream):
                yield line.value
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror or error}") from error
