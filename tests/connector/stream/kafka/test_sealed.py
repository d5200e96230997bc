"""From a topic into a Milvus server: the group's place moves over what is sealed, and the rest is written again."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from pymilvus import MilvusClient

from bartizan_connector.store.backend import Store
from tests.connector.stream.forgetting import forget_rows
from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.kafka.mortals import ENCODER, Nursery, Post, opened, settings_of
from tests.connector.stream.streams import collection_for
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server
COUNT = 10


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


class World:
    """A topic of one partition, its collection on a Milvus server, and who looks at both."""

    def __init__(self, broker: KafkaServer, milvus: MilvusServer, nursery: Nursery, folder: Path) -> None:
        self.broker = broker
        self.milvus = milvus
        self._nursery = nursery
        topic = broker.topic()
        self.gate = folder / "gate"
        """Nothing is sealed while it is not there."""
        self.post = Post(
            name="",
            folder=str(folder),
            bootstrap=broker.bootstrap,
            topic=topic,
            uri=milvus.uri,
            gate=str(self.gate),
        )
        self._collection = collection_for(ENCODER.spec, name=self.post.collection)
        self._place = TopicPartition(topic, 0)
        self.backend = opened(milvus.uri)
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """Once a worker has made it."""
        self._store = self._store or self.backend.open(self._collection, create=False)
        return self._store

    def produce(self, first: int, count: int = COUNT) -> list[str]:
        ids = [f"d{number}" for number in range(first, first + count)]
        self.broker.produce(
            self.post.topic, [{"key": id.encode(), "value": json.dumps({"text": f"of {id}"}).encode()} for id in ids]
        )
        return ids

    def worker(self, name: str, **more: Any) -> Any:
        return self._nursery.worker(replace(self.post, name=name, **more))

    def catch_up(self, name: str) -> str:
        """What the worker says of it."""
        last = self.worker(name, follow=False)
        last.wait(120)
        assert last.failure == ""
        return self.told(name)

    def told(self, name: str) -> str:
        return Path(self.post.folder, f"{name}.log").read_text()

    def is_there(self, ids: Sequence[str]) -> bool:
        if self._collection.name not in self.backend.aliases():
            return False
        return len(self.store.heads(ids)) == len(self.store.get(ids)) == len(ids)

    def group(self) -> tuple[int, str]:
        """Its place, and what stands beside it."""
        with closing(self._member()) as consumer:
            found = consumer.committed(self._place, metadata=True, timeout_ms=10_000)
            return (found.offset, found.metadata) if found else (-1, "")

    def rewind(self, offset: int) -> None:
        """Once the group is empty: who left it may count for a session more."""

        def moved() -> bool:
            with suppress(KafkaError), closing(self._member()) as consumer:
                consumer.assign([self._place])
                consumer.commit({self._place: OffsetAndMetadata(offset, "", -1)}, timeout_ms=10_000)
                return True
            return False

        wait_for(moved, 60)

    def _member(self) -> Any:
        settings = settings_of(self.post)
        return KafkaConsumer(bootstrap_servers=settings.bootstrap, group_id=settings.group, enable_auto_commit=False)


@pytest.fixture
def world(kafka_server: KafkaServer, milvus: MilvusServer, nursery: Nursery, tmp_path: Path) -> Iterator[World]:
    world = World(kafka_server, milvus, nursery, tmp_path)
    yield world
    world.backend.drop(world.post.collection)
    world.backend.close()


def _sealed(world: World) -> int:
    """Rows that are written down."""
    with closing(MilvusClient(world.milvus.uri, timeout=10)) as client:
        segments = client.list_persistent_segments(world.store.physical_name, timeout=10)
        return sum(each.num_rows for each in segments if int(each.state) == 4)


def test_the_place_of_the_group_moves_with_a_seal_and_a_replay_of_it_writes_nothing(world: World) -> None:
    ids = world.produce(0)
    follower = world.worker("follower")
    wait_for(lambda: world.is_there(ids), 120)
    assert world.group() == (0, f"written={COUNT}")
    world.gate.touch()
    wait_for(lambda: world.group() == (COUNT, ""), 60)
    assert _sealed(world) == COUNT
    world.gate.unlink()
    more = world.produce(COUNT)
    wait_for(lambda: world.is_there(more), 120)
    assert world.group() == (COUNT, f"written={2 * COUNT}")
    world.gate.touch()
    follower.signal(signal.SIGTERM)
    follower.wait(60)
    assert follower.failure == ""
    assert world.group() == (2 * COUNT, "")
    assert _sealed(world) == 2 * COUNT
    world.rewind(0)
    told = world.catch_up("again")
    assert f"{2 * COUNT} unchanged" in told or told.count(f"{COUNT} unchanged") == 2
    assert " written" not in told
    assert world.group() == (2 * COUNT, "")


def test_what_a_killed_worker_had_not_sealed_is_written_again_though_its_heads_stand(world: World) -> None:
    ids = world.produce(0)
    doomed = world.worker("doomed")
    wait_for(lambda: world.is_there(ids), 120)
    doomed.signal(signal.SIGKILL)
    doomed.wait(10)
    assert world.group() == (0, f"written={COUNT}")
    forget_rows(world.milvus.uri, world.store, ids)
    world.gate.touch()
    world.catch_up("next")
    assert world.is_there(ids)
    assert world.group() == (COUNT, "")


def test_a_worker_that_finds_its_server_started_again_writes_what_was_not_sealed_again(world: World) -> None:
    ids = world.produce(0)
    world.gate.touch()
    follower = world.worker("follower")
    wait_for(lambda: world.is_there(ids) and world.group() == (COUNT, ""), 120)
    world.gate.unlink()
    more = world.produce(COUNT)
    wait_for(lambda: world.is_there(more), 120)
    forget_rows(world.milvus.uri, world.store, more)
    told = len(world.told("follower"))
    world.milvus.kill()
    assert world.group() == (COUNT, f"written={2 * COUNT}")
    world.gate.touch()
    time.sleep(1.0)
    world.milvus.start()
    wait_for(lambda: "is read again" in world.told("follower")[told:], 150)
    wait_for(lambda: world.group() == (2 * COUNT, ""), 150)
    assert world.is_there([*ids, *more])
    assert "\nagain: " not in world.told("follower")[told:], "its supervisor was needed"
    follower.signal(signal.SIGTERM)
    follower.wait(60)
    assert follower.failure == ""
