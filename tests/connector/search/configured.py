"""A configuration of fakes: towers of hashes and words, a store in memory, and a log of what was opened."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bartizan_connector.base.errors import Retry
from bartizan_connector.config import Config
from bartizan_connector.config.settings import CollectionSettings, SearchSettings, SpaceSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import EncoderSettings
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.store.collection import Collection, Row
from bartizan_connector.store.memory import MemoryBackend, MemoryStore
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.testing.sparse_fake import WordEncoder

TEXTS = {
    "sleep": "pause the program for some seconds",
    "copy": "copy a file to another place",
    "join": "join parts of a path",
    "walk": "walk through a tree of folders",
}


class Fake(Protocol):
    """An encoder that needs no file."""

    spec: TowerSpec

    def close(self) -> None: ...


@dataclass
class Log:
    """What was opened and closed, in order; and what is to hang or fail instead."""

    events: list[str] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def open(self, what: str) -> None:
        time.sleep(self.seconds.get(what, 0.0))
        self.events.append(f"open {what}")
        if what in self.failures:
            raise self.failures[what]

    def still_open(self) -> list[str]:
        opened = [event.removeprefix("open ") for event in self.events if event.startswith("open ")]
        closed = [event.removeprefix("close ") for event in self.events if event.startswith("close ")]
        return [what for what in opened if what not in self.failures and what not in closed]


class FakeSettings(EncoderSettings):
    """Opens the fake tower of that name, in the place of the one in the folder."""

    engine: Literal["fake"] = "fake"
    towers: Any
    log: Any

    def open(self, folder: Path) -> Encoder:
        self.log.open(folder.name)
        encoder = self.towers[folder.name]
        encoder.close = lambda: self.log.events.append(f"close {folder.name}")
        return encoder  # type: ignore[no-any-return]


class MemorySettings(BackendSettings):
    """Opens one memory again and again."""

    memory: Any
    log: Any

    def open(self) -> Any:
        self.log.open("backend")
        return _Backend(self.memory, self.log)


class _Backend:
    def __init__(self, memory: MemoryBackend, log: Log) -> None:
        self._memory, self._log = memory, log

    def open(self, collection: Collection, *, create: bool = True) -> MemoryStore:
        self._log.open("store")
        store = self._memory.open(collection, create=create)
        store.close = lambda: self._log.events.append("close store")  # type: ignore[method-assign]
        return store

    def close(self) -> None:
        self._log.events.append("close backend")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


def towers() -> dict[str, Fake]:
    """Two dense ones and a sparse one."""
    return {"dense": HashEncoder(), "other": HashEncoder(dim=8, seed=5), "terms": WordEncoder()}


def configured(
    folder: Path,
    fakes: Mapping[str, Fake],
    log: Log | None = None,
    *,
    words: bool = False,
    search: SearchSettings | None = None,
) -> Config:
    """A leg for each fake, filled with TEXTS."""
    log = log or Log()
    for name, fake in fakes.items():
        (folder / "towers" / name).mkdir(parents=True)
        fake.spec.write(folder / "towers" / name)
    memory = MemoryBackend()
    config = Config(
        collection=CollectionSettings(name="docs"),
        spaces={name: SpaceSettings(document_tower=folder / "towers" / name) for name in fakes},
        encoders={"query": FakeSettings(towers=dict(fakes), log=log)},
        backend=MemorySettings(memory=memory, log=log, lexical=folder / "words" if words else None),
        search=search or SearchSettings(),
    )
    fill(memory.open(collection_of(config)), fakes)
    if words:
        index = WordIndex(folder / "words", "docs")
        index.upsert(rows({}))
        index.close()
    return config


def fill(store: MemoryStore, fakes: Mapping[str, Any], texts: Mapping[str, str] = TEXTS) -> None:
    store.upsert(rows({name: fake.encode(list(texts.values()), "document") for name, fake in fakes.items()}, texts))


def rows(vectors: Mapping[str, Any], texts: Mapping[str, str] = TEXTS) -> list[Row]:
    return [
        Row(
            id=id,
            vectors={name: each[position] for name, each in vectors.items()},
            fields={"title": id, "text": text},
            version=1,
            hash=id,
        )
        for position, (id, text) in enumerate(texts.items())
    ]


def unreachable(what: str) -> Retry:
    return Retry(f"{what} does not answer")
