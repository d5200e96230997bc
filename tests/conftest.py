"""What all tests share: readable failures of the shipped suites, and the real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import MilvusServer, milvus_server

pytest.register_assert_rewrite("bartizan_connector.testing")


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
