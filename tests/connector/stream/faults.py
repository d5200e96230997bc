"""What the tests of the pipeline drive it with: an encoder, a back-end and words that fail as they are told."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from bartizan_connector.base.errors import Reject, Stop
from bartizan_connector.encode.encoder import Encoder as AnyEncoder
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Backend as AnyBackend
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.store.memory import MemoryBackend, MemoryStore
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Message, Source
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.streams import ListSource, collection_for

ENCODER = HashEncoder(dim=8, max_tokens=3)
COLLECTION = collection_for(ENCODER.spec)
EVERYTHING = 1000
SOON = 10.0
"""Seconds within which a thread does what it is waited for."""


class Encoder(HashEncoder):
    """Counts what it encodes, and fails first as it is told."""

    def __init__(
        self, *failures: Exception, poison: str | None = None, away: dict[str, list[Exception]] | None = None
    ) -> None:
        super().__init__(dim=8, max_tokens=3)
        self.failures = list(failures)
        self.away = away or {}
        """Text → what happens first when it is to be encoded."""
        self.poison = poison
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        assert role == "document"
        if self.failures:
            raise self.failures.pop(0)
        for text in texts:
            if self.away.get(text):
                raise self.away[text].pop(0)
        if self.poison in texts:
            raise Reject((), "this text cannot be encoded")
        self.encoded += texts
        return super().encode(texts, role, timeout=timeout)


class Backend(MemoryBackend):
    """A real one in memory; its stores write down their effects and fail where they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []
        self.fail: dict[str, list[Exception]] = {}
        self.refused: frozenset[str] = frozenset()
        self.torn = False

    def open(self, collection: Collection, *, create: bool = True) -> "FaultyStore":
        opened = super().open(collection, create=create)
        return FaultyStore(self, collection.name, opened.physical_name)


class FaultyStore(MemoryStore):
    """What a `Backend` opens."""

    def __init__(self, backend: Backend, name: str, physical_name: str) -> None:
        super().__init__(backend, name, physical_name)
        self._faults = backend

    def upsert(self, rows: Sequence[Row]) -> None:
        bad = [row.id for row in rows if row.fields["text"] in self._faults.refused]
        if bad:
            raise Reject(bad, "the store refuses it")
        self._effect("upsert", [row.id for row in rows], lambda: super(FaultyStore, self).upsert(rows))

    def touch(self, heads: Sequence[Head]) -> None:
        self._effect("touch", [head.id for head in heads], lambda: super(FaultyStore, self).touch(heads))

    def delete(self, heads: Sequence[Head]) -> None:
        self._effect("delete", [head.id for head in heads], lambda: super(FaultyStore, self).delete(heads))

    def _effect(self, name: str, ids: Sequence[str], do: Callable[[], None]) -> None:
        faults = self._faults
        if faults.fail.get(name):
            raise faults.fail[name].pop(0)
        before = self.heads(ids)
        do()
        faults.effects.append(f"{name} {' '.join(ids)}")
        if faults.torn and name != "touch":
            # Power cut between the rows and their heads: the rows are changed, the heads are not.
            super().touch(list(before.values()))
            raise Stop("power cut")


class Gated(Backend):
    """Its stores hold every write until `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.began = Event()
        self.refuse_next = False

    def open(self, collection: Collection, *, create: bool = True) -> FaultyStore:
        opened = super().open(collection, create=create)
        backend = self

        class Held(FaultyStore):
            def upsert(self, rows: Sequence[Row]) -> None:
                backend.began.set()
                assert backend.gate.wait(SOON)
                if backend.refuse_next:
                    backend.refuse_next = False
                    raise Reject([row.id for row in rows], "refused this once")
                super().upsert(rows)

        return Held(self, collection.name, opened.physical_name)


class Watched(Encoder):
    """Calls `when` before each call, with the texts."""

    def __init__(self, when: Callable[[Sequence[str]], None]) -> None:
        super().__init__()
        self.when = when

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self.when(texts)
        return super().encode(texts, role, timeout=timeout)


@dataclass
class Words:
    """The word index as the pipeline sees it."""

    held: dict[str, Row] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    origin: str | None = None
    fail: dict[str, list[Exception]] = field(default_factory=dict)

    def filled_from(self) -> str | None:
        return self.origin

    def fill_from(self, physical: str) -> None:
        self.origin = physical

    def pages(self) -> Iterator[Mapping[str, str]]:
        yield {id: row.hash for id, row in self.held.items()}

    def announced(self) -> Sequence[str]:
        return list(self.unsettled)

    def announce(self, ids: Sequence[str]) -> None:
        self.unsettled += ids

    def settle(self) -> None:
        self.unsettled.clear()

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {id: self.held[id].hash for id in ids if id in self.held}

    def upsert(self, rows: Sequence[Row]) -> None:
        self._fail("upsert")
        self.held |= {row.id: row for row in rows}
        self.effects.append(f"words upsert {' '.join(row.id for row in rows)}")

    def delete(self, ids: Sequence[str]) -> None:
        self._fail("delete")
        for id in ids:
            self.held.pop(id, None)
        self.effects.append(f"words delete {' '.join(ids)}")

    def _fail(self, name: str) -> None:
        if self.fail.get(name):
            raise self.fail[name].pop(0)


def run_dense(source: Source, encoder: AnyEncoder, backend: AnyBackend, collection: Collection, **more: Any) -> Report:
    """The pipeline with one tower, for the only leg."""
    (leg,) = collection.legs
    return run(source, {leg.name: encoder}, backend, collection, **more)


def ingest(messages: Sequence[Message], backend: AnyBackend, batch_size: int = 100) -> Report:
    return run_dense(ListSource(messages, batch_size), Encoder(), backend, COLLECTION)


def stored(backend: AnyBackend, collection: Collection = COLLECTION) -> dict[str, str]:
    """Everything a search can find: id → text."""
    store = backend.open(collection)
    hits = store.search("dense", ENCODER.encode(["anything"], "query"), EVERYTHING)[0]
    assert len({hit.id for hit in hits}) == len(hits), "a document is there twice"
    return {hit.id: str(hit.fields["text"]) for hit in hits}


def heads(backend: AnyBackend, ids: Sequence[str]) -> Mapping[str, Head]:
    return backend.open(COLLECTION).heads(ids)
