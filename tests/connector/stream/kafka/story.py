"""One story of workers, broker and store that die at random while a topic grows, and what must be true of it.

The topic itself is the model: what it says, partition by partition, is what the index must hold in the end. Meanwhile
an observer looks at heads and rows, and writes down what it sees; that no version went back is judged at the end.
"""

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.store.backend import Store
from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.kafka.model import Model, Seen
from tests.connector.stream.kafka.mortals import ENCODER, Nursery, Post, Worker, opened, settings_of
from tests.connector.stream.streams import collection_for
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer

PARTITIONS = 3
KEYS = 24
STEPS, RECORDS = 6, 40
_CONTENTS = ("apple", "banana", "cherry")
_PATIENT = 240.0
_REST = 60.0
"""Seconds that a Milvus server is left alone when it has been killed and started again: one that is killed once more
before it has caught up with its own log may lose what it had acknowledged (docs/decisions/029)."""
_HEALS = 20.0
"""Seconds after which what was found wrong is looked at again: whether the server only was late."""
_CATCHES = 10
IDS = [f"d{number}" for number in range(KEYS)]


@dataclass(kw_only=True)
class Cast:
    """Who plays: the servers live on from story to story."""

    broker: KafkaServer
    nursery: Nursery
    milvus: MilvusServer | None
    """None: the embedded store, which has one worker at a time."""
    mortal: frozenset[str] = frozenset({"worker", "broker", "milvus"})
    """Who may be killed."""
    rested_from: float = 0.0
    """When the Milvus server had last been started again."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Stories that go on at once kill the servers that they share one after the other."""
    playing: dict[str, tuple["Post", Seen]] = field(default_factory=dict)
    """Topic → who reads it, and what is seen of it, of every story that goes on."""

    def kill_milvus(self) -> None:
        """Kill it, tell every observer, and start it again."""
        assert self.milvus is not None
        observed = list(self.playing.values())
        for post, seen in observed:
            seen.committed(_committed(post))
        self.milvus.kill()
        for _, seen in observed:
            seen.lives_again()
        self.milvus.start()
        self.rested_from = time.monotonic()


class Story:
    """One seed."""

    def __init__(self, seed: int, cast: Cast, folder: Path) -> None:
        self._dice = random.Random(seed)
        self._cast = cast
        with cast.turn:
            topic = cast.broker.topic(partitions=PARTITIONS)
        uri = cast.milvus.uri if cast.milvus else str(folder / "index")
        self._post = Post(
            name="last", folder=str(folder), bootstrap=cast.broker.bootstrap, topic=topic, uri=uri, follow=False
        )
        self._collection = collection_for(ENCODER.spec, name=self._post.collection)
        self._most = 3 if cast.milvus else 1
        self._workers: list[Worker] = []
        self._failures: list[str] = []
        self._count = 0
        self.happened: dict[str, int] = {}
        """What → how often."""
        self.looks = self.milvus_kills = 0
        self.forgotten = 0
        """After how many kills of its server it showed less than before, until it was given again."""
        self.late = ""
        """What a server showed wrongly at the end, and rightly when it was asked again."""

    @property
    def changes(self) -> int:
        """That were written to the topic."""
        return self._count

    def play(self) -> None:
        """To the end; an AssertionError where something was lost, doubled, brought back or out of order."""
        from kafka import KafkaProducer

        with self._cast.turn:
            producer = KafkaProducer(bootstrap_servers=self._post.bootstrap, reconnect_backoff_max_ms=500)
        with closing(producer), self._observed() as seen:
            try:
                self._begin()
                for _ in range(STEPS):
                    sent = [producer.send(self._post.topic, **record) for record in self._records()]
                    time.sleep(self._dice.random() * 0.7)
                    self._happen()
                    for each in sent:
                        each.get(timeout=_PATIENT)
                self._conclude()
            finally:
                for worker in self._workers:
                    worker.signal(signal.SIGKILL)
        with self._cast.turn:
            self._judge(seen)
        self.looks = len(seen.looks)

    def _records(self) -> Iterator[dict[str, Any]]:
        """Puts, updates and deletes of a few keys; of every second key the content returns to what it was."""
        for _ in range(RECORDS):
            self._count += 1
            number = self._dice.randrange(KEYS)
            kind = self._dice.random()
            content = self._dice.choice(_CONTENTS)
            text = content if number % 2 else f"{content} {self._count}"
            value: bytes | None = json.dumps({"text": text}).encode()
            if kind < 0.12:
                value = None
            elif kind < 0.2:
                value = b'{"_deleted": true}'
            yield {"key": IDS[number].encode(), "value": value}

    def _happen(self) -> None:
        dice, mortal = self._dice, self._cast.mortal
        self._bury()
        deeds = {"nothing": 1, "begin": 3, "tell": 1, "replay": 0.7}
        deeds |= {"kill": 2} if "worker" in mortal else {}
        deeds |= {"broker": 1} if "broker" in mortal else {}
        deeds |= {"milvus": 1} if "milvus" in mortal and self._cast.milvus else {}
        if not self._workers:
            deeds = {"begin": 1}
        (deed,) = dice.choices(list(deeds), weights=list(deeds.values()))
        self.happened[deed] = self.happened.get(deed, 0) + 1
        if deed == "begin":
            self._begin()
        elif deed == "tell":
            self._dice.choice(self._workers).signal(signal.SIGTERM)
        elif deed == "kill":
            self._dice.choice(self._workers).signal(signal.SIGKILL)
        elif deed == "replay":
            self._replay()
        elif deed == "broker":
            with self._cast.turn:
                self._cast.broker.kill()
                time.sleep(dice.random() * 0.5)
                self._cast.broker.start()
        elif deed == "milvus":
            with self._cast.turn:
                if time.monotonic() - self._cast.rested_from > _REST:
                    self._cast.kill_milvus()
                    self.milvus_kills += 1

    def _begin(self) -> None:
        """One worker more, if there is room; every other one kills itself after some effects."""
        self._bury()
        if len(self._workers) >= self._most:
            return
        bomb = self._dice.randrange(3, 60) if self._dice.random() < 0.5 and "worker" in self._cast.mortal else None
        post = replace(self._post, name=f"worker-{self._count}-{len(self._workers)}", follow=True, kill_after=bomb)
        self._workers.append(self._cast.nursery.worker(post))

    def _bury(self) -> None:
        """Who has ended is not among the workers any more; an end by an error is no end."""
        self._failures += [worker.failure for worker in self._workers if not worker.lives and worker.failure]
        assert not self._failures, self._failures[0]
        self._workers = [worker for worker in self._workers if worker.lives]

    def _replay(self) -> None:
        """All stop, in good order or not, and the group reads from an earlier place."""
        how = signal.SIGKILL if self._dice.random() < 0.3 and "worker" in self._cast.mortal else signal.SIGTERM
        for worker in self._workers:
            worker.signal(how)
        for worker in self._workers:
            worker.wait(_PATIENT)
        self._bury()
        with self._cast.turn:
            self._cast.playing[self._post.topic][1].committed(_committed(self._post))
        _rewind(self._post, self._dice)

    def _conclude(self) -> None:
        """Who lives is told to stop, and one more reads what is left."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        for worker in self._workers:
            worker.wait(_PATIENT)
        self._bury()
        for number in range(_CATCHES):  # one that catches up leaves to a dead member what the group still has it own
            last = self._cast.nursery.worker(replace(self._post, name=f"last-{number}"))
            self._workers.append(last)
            last.wait(_PATIENT)
            self._bury()
            with self._cast.turn:
                if _is_read(self._post):
                    return
        raise AssertionError("the topic is not read to its end")

    @contextmanager
    def _observed(self) -> Iterator[Seen]:
        seen, over = Seen(IDS), threading.Event()

        def look() -> None:
            with closing(opened(self._post.uri)) as backend:
                store: Store | None = None
                while not over.wait(0.1):
                    with suppress(BartizanError):
                        store = store or backend.open(self._collection, create=False)
                        seen.look(store)

        observer = threading.Thread(target=look)
        with self._cast.turn:
            self._cast.playing[self._post.topic] = (self._post, seen)
        observer.start()
        try:
            yield seen
        finally:
            over.set()
            observer.join()
            with self._cast.turn:
                del self._cast.playing[self._post.topic]

    def _judge(self, seen: Seen) -> None:
        model = Model(self._cast.broker.read(self._post.topic))
        with closing(opened(self._post.uri)) as backend:
            store: Any = backend.open(self._collection, create=False)
            wrong = model.unlike(store)
            if wrong and self._cast.milvus is not None:  # see Seen.look
                self.late = f"{wrong}"
                time.sleep(_HEALS)
                wrong = model.unlike(store)
            assert not wrong, f"lost, doubled, brought back, or old: {wrong}; before: {self.late}"
            self.forgotten = model.judge_order(seen, by_rows=self._cast.milvus is None)
            store.close()
            if self._cast.milvus:
                backend.drop(self._post.collection)


def _is_read(post: Post) -> bool:
    """Whether the group has committed all that is there."""
    with _consumer(post) as consumer:
        committed = _offsets(consumer, post)
        ends = consumer.end_offsets(list(committed))
        return all(committed[place] >= end for place, end in ends.items())


def _committed(post: Post) -> dict[int, int]:
    """Partition → the group's place."""
    with _consumer(post) as consumer:
        return {place.partition: offset for place, offset in _offsets(consumer, post).items()}


def _offsets(consumer: Any, post: Post) -> dict[Any, int]:
    from kafka import TopicPartition

    places = [TopicPartition(post.topic, number) for number in range(PARTITIONS)]
    return {place: consumer.committed(place) or 0 for place in places}


@contextmanager
def _consumer(post: Post) -> Iterator[Any]:
    """Reads and sets the group's places without joining it."""
    from kafka import KafkaConsumer

    settings = settings_of(post)
    with closing(
        KafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            group_id=settings.group,
            enable_auto_commit=False,
            reconnect_backoff_max_ms=500,
        )
    ) as consumer:
        yield consumer


def _rewind(post: Post, dice: random.Random) -> None:
    """The group goes on from earlier places; it must be empty by then."""
    from kafka.errors import KafkaError
    from kafka.structs import OffsetAndMetadata

    with _consumer(post) as consumer:

        def moved() -> bool:
            with suppress(KafkaError):
                earlier = {
                    place: OffsetAndMetadata(dice.randrange(offset + 1), "", -1)
                    for place, offset in _offsets(consumer, post).items()
                }
                consumer.assign(list(earlier))
                consumer.commit(earlier, timeout_ms=2000)
                return True
            return False

        wait_for(moved, 30)
