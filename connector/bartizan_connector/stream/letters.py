"""Dead letters: messages that could not be written, each kept with the reason, to be looked at and given again.

A letter keeps the version, origin and offset that its message was read at. So when it is given again, whatever has come
for its id meanwhile still counts as newer (`late`, rule 6 in stream/fence.py).
"""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bartizan_connector.stream.source import Message, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message that was set aside."""

    place: str
    """Its name in the letterbox; the message's position is the same."""
    source: str
    """Where the message came from, for people: `corpus.jsonl:17`, `docs[3]@1204`."""
    message: Message
    """As it was read, and late."""
    id: str
    """The document's, as far as that can be told; else empty."""
    reason: str
    time: float | None = None
    """When it was set aside, seconds since 1970, where that is known."""


Chosen = Callable[[Letter], bool]


class Letterbox(Protocol):
    """Where a source's dead letters are."""

    @property
    def place(self) -> str:
        """Where that is, for people."""
        ...

    def letters(self) -> Generator[Letter, None, None]:
        """Those that nobody has seen to, oldest first."""
        ...

    def again(self, chosen: Chosen) -> Source:
        """A source of those that are chosen. What its `commit` was told is not listed any more; what was refused once
        more is, with its new reason."""
        ...

    def flush(self) -> None:
        """What was committed is durable when this returns; else it comes again, which does no harm."""
        ...

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        ...


Outcome = tuple[Letter, str | None]
"""A letter that was given again, and why it was refused, if it was."""


def chooser(*, reasons: Sequence[str] = (), ids: Sequence[str] = (), since: float | None = None) -> Chosen:
    """Letters with one of these words in their reason, of one of these ids, set aside since then; nothing: any."""

    def chosen(letter: Letter) -> bool:
        return (
            (not reasons or any(word in letter.reason for word in reasons))
            and (not ids or letter.id in ids)
            and (since is None or letter.time is None or letter.time >= since)
        )

    return chosen


def id_in(key: str | None, value: bytes | None) -> str:
    """The id that a message is about, as far as that can be told."""
    if key is not None:
        return key
    try:
        record = json.loads(value or b"")
    except (ValueError, RecursionError):
        return ""
    found = record.get("_id", record.get("id", "")) if isinstance(record, dict) else ""
    return str(found) if isinstance(found, str | int) else ""
