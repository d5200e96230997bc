"""What stops nothing, and what stops everything in time: a broker away, one poison among many, another space."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import SpaceMismatch
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.faults import COLLECTION, Encoder, run_dense, stored
from tests.connector.stream.kafka.media import letters_in, settings_for, wait_for
from tests.connector.stream.kafka.workers import Model, Worker, after, changes
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
AWAY = 20.0
"""Seconds: longer than the session, and than any single call waits."""
MANY = 10_000
POISON = b'{"_id": "poison", "text": '


class Flat(Encoder):
    """The same vector for all, so that ten thousand documents cost nothing."""

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        one, many = super().encode(["one"], role, timeout=timeout), len(texts)
        return replace(one, values=np.repeat(one.values, many, axis=0), tokens=(1,) * many, truncated=(False,) * many)


def test_a_broker_that_is_long_away_is_waited_for(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        topic, backend = server.topic(partitions=2), MemoryBackend()
        first, second = changes(20, 200, 30), changes(21, 200, 30)
        server.produce(topic, first)
        worker = Worker(server, topic, backend, session_timeout=3.0)
        wait_for(lambda: worker.read > 20)  # in the middle
        server.kill()
        time.sleep(AWAY)
        server.start()
        server.produce(topic, second)
        model: Model = after(second, after(first))
        wait_for(lambda: stored(backend) == model, 60)
        worker.end()
        assert stored(backend) == model
    finally:
        server.stop()


def test_one_poison_among_ten_thousand_stops_nothing(kafka_server: KafkaServer, tmp_path: Path) -> None:
    topic = kafka_server.topic(partitions=3)
    records = changes(22, MANY - 1, 2_000)
    half = len(records) // 2
    kafka_server.produce(topic, [*records[:half], {"key": b"poison", "value": POISON}, *records[half:]])
    settings = settings_for(kafka_server, topic, batch_size=500, session_timeout=30.0)  # counted: nobody is put out
    with (
        closing(KafkaSource.open(settings, follow=False)) as source,
        closing(EmbeddedBackend(tmp_path / "index", index="flat")) as backend,
    ):
        report = run_dense(source, Flat(), backend, COLLECTION)
        assert (report.read, report.dead, report.dropped) == (MANY, 1, 0)
        with closing(backend.open(COLLECTION)) as store:
            assert {each.id: str(each.rows[0].fields["text"]) for each in store.scan()} == after(records)
    (letter,) = letters_in(kafka_server, f"{topic}.DLQ")
    assert letter.value == POISON


def test_a_topic_is_not_read_into_a_collection_of_another_space(kafka_server: KafkaServer) -> None:
    topic, backend = kafka_server.topic(), MemoryBackend()
    backend.open(COLLECTION).close()
    kafka_server.produce(topic, changes(23, 20, 5))
    stranger = HashEncoder(dim=8, seed=7)
    with closing(KafkaSource.open(settings_for(kafka_server, topic))) as source:
        with pytest.raises(SpaceMismatch):
            run_dense(source, stranger, backend, COLLECTION)
        assert source._reader is None  # the group was not even joined
    worker = Worker(kafka_server, topic, backend)
    wait_for(lambda: worker.read >= 20)  # all of it is still to be read
    worker.end()
