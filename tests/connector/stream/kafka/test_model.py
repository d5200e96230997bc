"""Whatever dies, and whenever: the index is in the end what the topic says, and never went back on the way."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connector.stream.kafka.mortals import Nursery
from tests.connector.stream.kafka.story import Cast, Story
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
