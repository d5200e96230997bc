"""What all tests share: readable failures of the shipped suites, what is never garbage, and the real servers."""

import gc
import socket
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from kafka.net.inet import KafkaNetSocket

from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer, milvus_server

pytest.register_assert_rewrite("bartizan_connector.testing")
hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is no counterexample
hypothesis.settings.load_profile("any machine")


class Dropped(socket.socket):
    """A connection of kafka-python 3.0, which drops some that a broker refuses or that end half made: each is closed
    in silence when it becomes garbage. (A client that nobody closed is not garbage: its thread runs on.)"""

    def __del__(self) -> None:
        self.close()


KafkaNetSocket.socket = lambda _, *kind: Dropped(*kind)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here lives to the end: millions of objects that no later search for garbage need visit."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_sessionfinish() -> None:
    """Let go of them as usual: libraries complain of what is left when the interpreter ends."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def milvus_binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's programs are unpacked, once for all servers of the run."""
    return tmp_path_factory.mktemp("milvus-programs")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory, milvus_binaries: Path) -> Iterator[MilvusServer]:
    """A Milvus server for the whole run; tests take collection names of their own."""
    server = milvus_server(tmp_path_factory.mktemp("milvus"), milvus_binaries)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A Kafka broker for the whole run; tests take topics of their own."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()
