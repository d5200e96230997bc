"""What the tests of the stream share: a source in memory, random changes, and the dictionary they must end up as."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.store.collection import Collection, FieldSpec, Leg
from bartizan_connector.stream.records import text_of
from bartizan_connector.stream.source import Batch, Message

FIELDS = (
    FieldSpec(name="title", type="string", default=""),
    FieldSpec(name="text", type="string", default=""),
    FieldSpec(name="year", type="int", default=0),
)


def collection_for(*specs: TowerSpec, name: str = "docs") -> Collection:
    """A leg for each tower, called as its kind."""
    return Collection(name=name, legs=tuple(Leg.of(spec) for spec in specs), fields=FIELDS)


def message(id: str, text: str | None, version: int, **more: Any) -> Message:
    """A put of that text, or without one a delete."""
    change = {"_deleted": True} if text is None else {"text": text}
    value = json.dumps({"_id": id, "_version": version} | change | more).encode()
    return Message(position=f"list:{id}@{version}", value=value, version=0)


@dataclass
class ListSource:
    """A source in memory that keeps what a real one would: what was committed, what was set aside."""

    messages: Sequence[Message]
    batch_size: int = 100
    committed: int = 0
    dead: list[tuple[str, str]] = field(default_factory=list)

    given: int | None = None

    @property
    def dead_letters(self) -> str:
        return "the list of the dead"

    @property
    def ended(self) -> bool:
        return self._at >= len(self.messages)

    @property
    def _at(self) -> int:
        return self.committed if self.given is None else self.given

    def backlog(self) -> int:
        return len(self.messages) - self._at

    def poll(self, timeout: float) -> Batch | None:
        start = self._at
        self.given = min(start + self.batch_size, len(self.messages))
        return Batch(messages=tuple(self.messages[start : self.given])) if start < self.given else None

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        assert batch.messages[0] is self.messages[self.committed], "batches must be committed in order"
        self.committed += len(batch.messages)

    def dead_letter(self, message: Message, reason: str) -> None:
        self.dead.append((message.position, reason))

    def close(self) -> None:
        """What was given and not committed comes again."""
        self.given = None


@dataclass(frozen=True)
class Change:
    """One change of one document in the words of the tests; without content it is a delete."""

    id: str
    version: int
    content: str | None

    @property
    def record(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"_id": self.id, "_version": self.version}
        if self.content is None:
            return facts | {"_deleted": True}
        return facts | {"title": self.content.upper(), "text": f"fruit {self.content}", "year": len(self.content)}

    @property
    def encoded(self) -> str:
        return text_of(self.record["title"], self.record["text"])


IDS = ("a", "b", "c", 'quote " and \\', "ü")
CONTENTS = ("apple", "banana", "cherry")
"""Few, so that a document often returns to what it was: that is where a skipped write goes wrong."""


def changes(ids: Sequence[str] = IDS, newest: int = 9) -> st.SearchStrategy[Change]:
    """Puts, updates and deletes in any order: few versions, so many are replays, duplicates and late arrivals."""
    return st.builds(
        Change, id=st.sampled_from(ids), version=st.integers(0, newest), content=st.sampled_from(CONTENTS) | st.none()
    )


def state_after(log: Iterable[Change]) -> dict[str, Change]:
    """The oracle: for each id the newest change, of equal versions the first."""
    state: dict[str, Change] = {}
    for change in log:
        if change.id not in state or change.version > state[change.id].version:
            state[change.id] = change
    return state


def to_messages(log: Iterable[Change]) -> list[Message]:
    return [
        Message(position=f"log:{number}", value=json.dumps(change.record).encode(), version=0)
        for number, change in enumerate(log, start=1)
    ]
