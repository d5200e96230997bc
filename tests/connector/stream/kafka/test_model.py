"""Whatever dies, and whenever: the index is in the end what the topic says, and never went back on the way."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.kafka.mortals import ENCODER, Nursery, Post, opened
from tests.connector.stream.kafka.story import Cast, Story
from tests.connector.stream.kafka.workers import after, changes
from tests.connector.stream.streams import collection_for
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server
_GIVEN = os.environ.get("BARTIZAN_SEEDS", "")
"""Seeds to play instead, parted by commas."""
SEEDS = [int(seed) for seed in _GIVEN.split(",")] if _GIVEN else [random.randrange(10**6) for _ in range(5)]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def test_two_workers_write_side_by_side_under_one_lease(
    kafka_server: KafkaServer, milvus: MilvusServer, nursery: Nursery, tmp_path: Path
) -> None:
    topic = kafka_server.topic(partitions=4)
    post = Post(name="one", folder=str(tmp_path), bootstrap=kafka_server.bootstrap, topic=topic, uri=milvus.uri)
    workers = [nursery.worker(post), nursery.worker(replace(post, name="other"))]
    records: list[dict[str, Any]] = []
    logs = [tmp_path / f"{each.post.name}.log" for each in workers]

    def go_on() -> bool:
        """Whether both have written by now; one may take its partitions long after the other."""
        some = changes(31 + len(records), 30, 60)
        kafka_server.produce(topic, some)
        records.extend(some)
        time.sleep(0.5)
        return len(records) >= 300 and all(log.exists() and " written" in log.read_text() for log in logs)

    wait_for(go_on, 120)
    for each in workers:
        each.signal(signal.SIGTERM)
        each.wait(60)
        assert each.failure == ""
    last = nursery.worker(replace(post, name="last", follow=False))
    last.wait(60)
    assert last.failure == ""
    with closing(opened(milvus.uri)) as backend:
        store = backend.open(collection_for(ENCODER.spec, name=post.collection), create=False)
        assert {each.id: str(each.rows[0].fields["text"]) for each in store.scan()} == after(records)
        store.close()
        backend.drop(post.collection)


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_a_milvus_server_holds_what_the_topic_says(
    number: int, kafka_server: KafkaServer, milvus: MilvusServer, nursery: Nursery, tmp_path: Path
) -> None:
    cast = Cast(broker=kafka_server, nursery=nursery, milvus=milvus)
    if number:  # it takes the longest to come back
        cast.mortal -= {"milvus"}
    print(f"seed {SEEDS[number]}")
    Story(SEEDS[number], cast, tmp_path).play()


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_the_embedded_store_holds_what_the_topic_says(
    number: int, kafka_server: KafkaServer, nursery: Nursery, tmp_path: Path
) -> None:
    print(f"seed {SEEDS[number]}")
    Story(SEEDS[number], Cast(broker=kafka_server, nursery=nursery, milvus=None), tmp_path).play()
