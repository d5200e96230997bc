"""A store that forgets what it has not sealed, and a topic that notes what was given to one, for the tests of that."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pymilvus import MilvusClient

from bartizan_connector.base.errors import Forgotten, Stop
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.stream.source import Batch
from tests.connector.stream.faults import Backend, FaultyStore
from tests.connector.stream.topics import Topic, TopicSource

T = TypeVar("T")
State = tuple[dict[str, tuple[Row, ...]], dict[str, Head]]
"""Rows and heads."""


class Forgetful(Backend):
    """In memory; started again, it holds of each id the rows, and the head, of some moment since they were sealed."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[State] = [({}, {})]
        """What was there after each write; the first of them is sealed."""
        self.life = 0
        self.seals: list[Callable[[], None]] = []
        """What happens first when it is to seal."""
        self.at_write: dict[int, Callable[[], None]] = {}
        """What happens after which write."""
        self.writes = 0

    def open(self, collection: Collection, *, create: bool = True) -> "ForgetfulStore":
        opened = super().open(collection, create=create)
        return ForgetfulStore(self, collection.name, opened.physical_name)

    def state(self) -> State:
        with self._lock:
            (kept,) = self._kept.values()
            return dict(kept.rows), dict(kept.heads)

    def restart(self, dice: random.Random | None = None, *, rows_only: bool = False) -> None:
        """Without dice all that was not sealed is forgotten."""
        with self._lock:
            (kept,) = self._kept.values()
            for id in {id for state in self.history for each in state for id in each}:
                rows, heads = (dice.choice(self.history) if dice else self.history[0] for _ in range(2))
                _put(kept.rows, id, rows[0].get(id))
                if not rows_only:
                    _put(kept.heads, id, heads[1].get(id))
            kept.snapshot = None
            self.history = [self.state()]
            self.life += 1


def _put(there: dict[str, T], id: str, value: T | None) -> None:
    if value is None:
        there.pop(id, None)
    else:
        there[id] = value


class ForgetfulStore(FaultyStore):
    """What a `Forgetful` opens."""

    needs_seal = True

    def __init__(self, backend: Forgetful, name: str, physical_name: str) -> None:
        super().__init__(backend, name, physical_name)
        self._forgetful = backend
        self._life = backend.life

    def seal(self) -> None:
        backend = self._forgetful
        if backend.seals:
            backend.seals.pop(0)()
        with backend._lock:
            if self._life != backend.life:
                self._life = backend.life
                raise Forgotten("it was started again")
            backend.history = [backend.state()]
            backend.effects.append("seal")

    def upsert(self, rows: Sequence[Row]) -> None:
        super().upsert(rows)
        self._wrote()

    def touch(self, heads: Sequence[Head]) -> None:
        super().touch(heads)
        self._wrote()

    def delete(self, heads: Sequence[Head]) -> None:
        super().delete(heads)
        self._wrote()

    def _wrote(self) -> None:
        backend = self._forgetful
        with backend._lock:
            backend.history.append(backend.state())
            backend.writes += 1
        backend.at_write.pop(backend.writes, lambda: None)()


@dataclass
class NotingTopic(Topic):
    """Keeps beside each place up to where records were given to a store."""

    noted: dict[str, int] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)


class NotingSource(TopicSource):
    """A reader of it that ends with what is written by now."""

    def __init__(self, topic: NotingTopic, batch_size: int = 3, *, follows: bool = False) -> None:
        super().__init__(topic, batch_size)
        self._noting = topic
        self.ends = not follows
        topic.assign_all(self)

    def poll(self, timeout: float) -> Batch | None:
        batch = super().poll(timeout)
        if batch is None:
            return None
        noted = self._noting.noted.get(batch.partition, 0)
        return replace(batch, messages=tuple(replace(each, doubtful=each.offset < noted) for each in batch.messages))

    def note(self, batch: Batch) -> None:
        offset = batch.messages[-1].offset + 1
        self._noting.noted[batch.partition] = max(offset, self._noting.noted.get(batch.partition, 0))
        self._noting.effects.append(f"note {offset}")

    def give_again(self, partition: str) -> None:
        self._noting.effects.append("give again")
        self._noting.assign(partition, self)

    def commit(self, batch: Batch) -> None:
        assert self._noting.owners[batch.partition] == (self, batch.generation), "committed what is another's"
        offset = batch.messages[-1].offset + 1
        assert self._noting.committed.get(batch.partition, 0) < offset <= self._noting.noted[batch.partition]
        self._noting.committed[batch.partition] = offset
        self._noting.letters += [letter for partition, letter in self._letters if partition == batch.partition]
        self._letters = [each for each in self._letters if each[0] != batch.partition]
        self._noting.effects.append(f"commit {offset}")


class Killed(Stop):
    """The worker is dead."""


def killed() -> None:
    raise Killed("killed")


def forget_rows(uri: str, store: Store, ids: Sequence[str]) -> None:
    """On a real server rows go, and heads stand, as if it had forgotten the ones only."""
    with closing(MilvusClient(uri, timeout=10)) as client:
        names = ", ".join(f'"{id}"' for id in ids)
        client.delete(store.physical_name, filter=f"id in [{names}]")
    assert not store.get(ids)
    assert len(store.heads(ids)) == len(ids)
