"""Two configurations of one collection: towers of hashes, the running ones and the new ones, over one store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from bartizan_connector.config import Config
from bartizan_connector.config.settings import CollectionSettings, SpaceSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import EncoderSettings
from bartizan_connector.search.answer import Answer
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.stream.records import text_of
from bartizan_connector.testing.encoder_fake import HashEncoder

WORDS = ["oak", "elm", "ash", "fir", "yew", "box", "bay", "fig"]


@dataclass
class Count:
    """The texts that were encoded, in order."""

    texts: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)


class CountingEncoder(HashEncoder):
    """Writes down the documents that it encodes."""

    def __init__(self, dim: int, *, seed: int) -> None:
        super().__init__(dim, seed=seed)
        self.count = Count()

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "document":
            with self.count.lock:
                self.count.texts += texts
        return super().encode(texts, role, timeout=timeout)


class HashSettings(EncoderSettings):
    """Opens the tower that is at hand, in the place of the one in the folder."""

    engine: Literal["hash"] = "hash"
    tower: Any

    def open(self, folder: Path) -> Encoder:
        return self.tower  # type: ignore[no-any-return]


class HeldSettings(BackendSettings):
    """Opens the back-end that is at hand again and again; closing it lets the test go on with it."""

    held: Any

    def open(self) -> Any:
        return _Held(self.held)


class _Held:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def close(self) -> None:
        """It is the test's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@dataclass
class Pair:
    """The running configuration and the new one, and the towers of each."""

    old: Config
    new: Config
    towers: dict[str, CountingEncoder]
    """By space."""

    @property
    def spaces(self) -> dict[str, str]:
        return {"old": self.old_tower.spec.space_id, "new": self.new_tower.spec.space_id}

    @property
    def old_tower(self) -> CountingEncoder:
        return self.towers[collection_of(self.old).legs[0].space_id]

    @property
    def new_tower(self) -> CountingEncoder:
        return self.towers[collection_of(self.new).legs[0].space_id]

    def mixing(self, query: str, answer: Answer) -> list[str]:
        """Hits whose score is not what the answer's own tower gives for query and document."""
        assert answer.space_id is not None
        tower = self.towers[answer.space_id]
        if not answer.results:
            return []
        texts = [text_of(str(hit.fields["title"]), str(hit.fields["text"])) for hit in answer]
        asked: Any = HashEncoder.encode(tower, [query], "query").values
        stored: Any = HashEncoder.encode(tower, texts, "document").values
        expected = (stored @ asked[0]).tolist()
        scores = [hit.legs["dense"].score for hit in answer]
        return [
            hit.id
            for hit, score, truth in zip(answer, scores, expected, strict=True)
            if not np.isclose(score, truth, atol=1e-4)
        ]


def pair(folder: Path, backend: BackendSettings, *, name: str = "docs", lexical: bool = False) -> Pair:
    """Both over that back-end."""
    towers = {"old": CountingEncoder(16, seed=0), "new": CountingEncoder(8, seed=1)}
    configs = {}
    for which, tower in towers.items():
        place = folder / "towers" / which
        place.mkdir(parents=True)
        tower.spec.write(place)
        settings = HashSettings(tower=tower)
        configs[which] = Config(
            collection=CollectionSettings(name=name),
            spaces={"dense": SpaceSettings(document_tower=place)},
            encoders={"document": settings, "query": settings},
            backend=backend,
        )
    return Pair(configs["old"], configs["new"], {tower.spec.space_id: tower for tower in towers.values()})


def text(number: int, turn: int = 0) -> str:
    """What document `number` says at its `turn`-th change."""
    return f"{WORDS[number % 8]} {WORDS[(number // 8 + turn) % 8]} number{number} turn{turn}"
