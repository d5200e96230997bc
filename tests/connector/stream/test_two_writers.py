"""Two writers at once, round after round: one writes, the other is told who does, and no id is wrong in the end."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from bartizan_connector.base.errors import BartizanError, Retry, Stop
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.streams import Change, ListSource, collection_for, to_messages
from tests.servers.milvus import MilvusServer

ROUNDS = 2
"""In the soak: 25."""
ENCODER = HashEncoder(dim=8)
IDS = [f"d{number}" for number in range(30)]
SOON = 60.0


@dataclass
class Waiting(ListSource):
    """A source whose second batch comes when it is let go."""

    began: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)

    def poll(self, timeout: float) -> Batch | None:
        if self.given and not self.go_on.wait(timeout):
            return None
        return super().poll(timeout)

    def commit(self, batch: Batch) -> None:
        super().commit(batch)
        self.began.set()


class Writer(Thread):
    """One run, and how it ended."""

    def __init__(self, backend: Backend, source: ListSource, name: str) -> None:
        super().__init__(daemon=True)
        self._backend, self._source, self._collection = backend, source, collection_for(ENCODER.spec, name=name)
        self.error: BartizanError | None = None

    def run(self) -> None:
        patience = Patience(attempts=1)
        try:
            run(self._source, {"dense": ENCODER}, self._backend, self._collection, patience=patience)
        except BartizanError as error:
            self.error = error
        finally:
            self._backend.close()


def changes_of(dice: random.Random, version: int) -> list[Change]:
    return [Change(id, version, dice.choice(("apple", "banana", None))) for id in dice.sample(IDS, 20)]


def rounds(opened: Callable[[float], Backend], name: str, count: int, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    state: dict[str, Change] = {}
    for number in range(count):
        stalls = number % 2 == 1
        early, late = changes_of(dice, 2 * number + 1), changes_of(dice, 2 * number + 2)
        while {change.id for change in early[10:]} <= {change.id for change in late}:
            late = changes_of(dice, 2 * number + 2)  # else the one that woke up late has nothing to write
        first = Waiting(to_messages(early), batch_size=10)
        one = Writer(opened(300.0), first, name)
        one.start()
        assert first.began.wait(SOON)
        other = Writer(opened(0.0 if stalls else 300.0), ListSource(to_messages(late), batch_size=10), name)
        other.start()
        other.join(SOON)
        first.go_on.set()
        one.join(SOON)
        assert not one.is_alive()
        if stalls:  # it woke up late: what it had committed stands, and nothing of it comes after
            assert other.error is None
            assert isinstance(one.error, Stop | Retry)
            assert "writ" in str(one.error)
            ended = [*early[:10], *late]
        else:
            assert one.error is None
            assert isinstance(other.error, Retry)
            assert "is being written by process" in str(other.error)
            ended = early
        for change in ended:
            if change.id not in state or change.version > state[change.id].version:
                state[change.id] = change
        backend = opened(300.0)
        compare(backend, name, state)
        backend.close()


def compare(backend: Backend, name: str, state: Mapping[str, Change]) -> None:
    """Heads, rows and vectors, each id."""
    store = backend.open(collection_for(ENCODER.spec, name=name), create=False)
    heads, documents = store.heads(IDS), store.get(IDS, vectors=True)
    assert {id: head.version for id, head in heads.items()} == {id: change.version for id, change in state.items()}
    alive = {id: change for id, change in state.items() if change.content is not None}
    assert documents.keys() == alive.keys()
    for id, change in alive.items():
        (row,) = documents[id].rows
        assert row.fields["text"] == change.record["text"]
        expected = ENCODER.encode([change.encoded], "document").values[0]
        np.testing.assert_allclose(np.asarray(row.vectors["dense"].value), expected, atol=1e-6)


def test_in_the_embedded_store(tmp_path: Path) -> None:
    rounds(
        lambda silence: EmbeddedBackend(tmp_path / "index.bartizan", silence=silence),
        "docs",
        ROUNDS,
        random.randrange(10**6),
    )


@pytest.mark.server
def test_on_a_milvus_server(milvus: MilvusServer) -> None:
    opened = lambda silence: MilvusBackend(milvus.uri, consistency="Strong", silence=silence)  # noqa: E731
    rounds(opened, "two_writers", ROUNDS, random.randrange(10**6))
