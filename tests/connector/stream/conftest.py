"""What the tests of the stream share: a look at the threads, and what the Kafka client leaves behind."""

import gc
import threading
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Fails a test that leaves one."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture(autouse=True)
def _dropped_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """The library drops a socket for each connection to a broker that was refused."""
    yield
    if request.node.get_closest_marker("server"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <s", ResourceWarning)
            gc.collect()
