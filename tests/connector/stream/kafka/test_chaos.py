"""Workers come, go and die at random while a topic grows: in the end the store is what the dictionary says."""

import random
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest

from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.memory import MemoryBackend
from tests.connector.stream.disruptions import Killed
from tests.connector.stream.faults import Encoder, stored
from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.kafka.workers import Model, Worker, after, changes
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
STEPS = 8


class Mortal(Encoder):
    """Dies at its n-th call, as a process would: nothing of the batch is written or committed."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._left = calls

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return super().encode(texts, role, timeout=timeout)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_becomes_of_the_workers_the_store_is_what_the_topic_says(kafka_server: KafkaServer, seed: int) -> None:
    chance = random.Random(seed)
    topic, backend = kafka_server.topic(partitions=3), MemoryBackend()
    model: Model = {}
    written = 0
    workers: list[Worker] = []
    for step in range(STEPS):
        records = changes(100 * seed + step, 60, 40)
        kafka_server.produce(topic, records)
        model, written = after(records, model), written + len(records)
        if len(workers) < 3 and chance.random() < 0.7:
            encoder = Mortal(chance.randrange(1, 6)) if chance.random() < 0.5 else Encoder()
            workers.append(Worker(kafka_server, topic, backend, encoder=encoder))
        elif workers and chance.random() < 0.6:
            ended(workers.pop(chance.randrange(len(workers))))
        time.sleep(chance.random() * 0.6)  # now hardly begun, now caught up
    for worker in workers:
        ended(worker)
    last = Worker(kafka_server, topic, backend)
    wait_for(lambda: stored(backend) == model and last.partitions == {0, 1, 2} and last.idle, 60)
    last.end()
    assert stored(backend) == model


def ended(worker: Worker) -> None:
    """In good order, or dead already."""
    with suppress(Killed):
        worker.end()
