"""A world that breaks in the middle: effects are counted, and at some the worker dies or loses a partition."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from bartizan_connector.base.errors import Reject, Retry
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.steps import Steps
from bartizan_connector.testing.encoder_fake import HashEncoder

UNENCODABLE, UNSTORABLE = "cannot be encoded", "cannot be stored"


class Killed(BaseException):
    """The process is dead; nothing that it still does has any effect."""


@dataclass
class Fate:
    """What happens at which effect: the n-th call that changes something, or the n-th that encodes."""

    at_effect: Mapping[int, Callable[[], None]] = field(default_factory=dict)
    kill_before: int = 0
    kill_after: int = 0
    torn: bool = False
    """Whether the effect after which it dies has changed the rows, but not the heads."""
    away: frozenset[int] = frozenset()
    """Effects that must be tried again."""
    at_encoding: Mapping[int, Callable[[], None]] = field(default_factory=dict)
    effects: int = 0
    encodings: int = 0
    dead: bool = False
    lock: Any = field(default_factory=RLock)
    """Held while a batch is decided and written, so that nobody takes its partition over in the middle of that."""

    def effect(self, do: Callable[[], None], tear: Callable[[], None] = lambda: None) -> None:
        """Do it, unless the worker is dead or dies now."""
        if self.dead:
            raise Killed
        self.effects += 1
        number = self.effects
        if number in self.at_effect:
            self.at_effect[number]()
        if number == self.kill_before:
            self.dead = True
            raise Killed
        if number in self.away:
            raise Retry("away", after=0.0)
        do()
        if number == self.kill_after:
            self.dead = True
            if self.torn:
                tear()
            raise Killed


class DoomedBackend:
    """A back-end whose stores meet their fate."""

    def __init__(self, inner: Backend, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def open(self, collection: Collection, *, create: bool = True) -> "DoomedStore":
        return DoomedStore(self._inner.open(collection, create=create), self._fate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class DoomedStore:
    """A store that refuses one text, and of which every effect counts; one cut off leaves rows and heads apart."""

    writes_whole = False

    def __init__(self, inner: Store, fate: Fate) -> None:
        self._inner = inner
        self.fate = fate

    def upsert(self, rows: Sequence[Row]) -> None:
        refused = [row.id for row in rows if row.fields["text"] == UNSTORABLE]
        if refused:
            raise Reject(refused, "the store refuses it")
        before = self._inner.heads([row.id for row in rows])
        self.fate.effect(lambda: self._inner.upsert(rows), lambda: self._inner.touch(list(before.values())))

    def part(self, name: str) -> "DoomedStore":
        """Who writes alone writes for all parts, and meets the fate there too."""
        return self

    def leave_part(self, name: str) -> None:
        pass

    def touch(self, heads: Sequence[Head]) -> None:
        self.fate.effect(lambda: self._inner.touch(heads))

    def delete(self, heads: Sequence[Head]) -> None:
        before = self._inner.heads([head.id for head in heads])
        self.fate.effect(lambda: self._inner.delete(heads), lambda: self._inner.touch(list(before.values())))

    def close(self) -> None:
        if not self.fate.dead:
            self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class DoomedWords:
    """The word index as the pipeline sees it, kept by the world."""

    origin: str | None = None

    def __init__(self, held: dict[str, list[Row]], unsettled: list[str], fate: Fate, *, beside: bool = False) -> None:
        """`beside`: another worker lives and has announced something, which is its own to settle."""
        self._held = held
        self._unsettled = unsettled
        self._fate = fate
        self._beside = beside
        self._mine: list[str] = []

    def filled_from(self) -> str | None:
        return self.origin

    def fill_from(self, physical: str) -> None:
        self.origin = physical

    def pages(self) -> Iterator[Mapping[str, str]]:
        yield {id: rows[0].hash for id, rows in self._held.items()}

    def announced(self) -> Sequence[str]:
        return [] if self._beside else list(self._unsettled)

    def announce(self, ids: Sequence[str]) -> None:
        self._mine += ids
        self._fate.effect(lambda: self._unsettled.extend(ids))

    def settle(self) -> None:
        self._fate.effect(self._settle)

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {id: self._held[id][0].hash for id in ids if id in self._held}

    def upsert(self, rows: Sequence[Row]) -> None:
        documents = {row.id: [each for each in rows if each.id == row.id] for row in rows}
        self._fate.effect(lambda: self._held.update(documents))

    def delete(self, ids: Sequence[str]) -> None:
        self._fate.effect(lambda: self._forget(ids))

    def _forget(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._held.pop(id, None)

    def _settle(self) -> None:
        self._unsettled[:] = [id for id in self._unsettled if id not in self._mine] if self._beside else []
        self._mine.clear()


class DoomedEncoder(HashEncoder):
    """Refuses one text; while it encodes, others may take a partition over."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(dim=8)
        self._fate = fate

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        fate = self._fate
        if fate.dead:
            raise Killed
        if UNENCODABLE in texts:
            raise Reject((), "the tower refuses it")
        fate.encodings += 1
        if fate.encodings in fate.at_encoding:
            fate.at_encoding[fate.encodings]()
        return super().encode(texts, role, timeout=timeout)


class GuardedSteps(Steps):
    """Holds the fate's lock while it decides and writes, as a rebalance waits for who is about to write."""

    def write(self, flight: Flight) -> None:
        store: Any = self._store
        with store.fate.lock:
            super().write(flight)
