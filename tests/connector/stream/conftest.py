"""What the tests of the stream share: a look at the threads, and what the Kafka client leaves behind."""

import gc
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

_ENDING_SECONDS = 10.0


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Fails a test that leaves one; those that are ending, as a server's do behind its stop, are waited for."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _ENDING_SECONDS
    while set(threading.enumerate()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) == before


@pytest.fixture(autouse=True)
def _dropped_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """The library drops a socket for each connection to a broker that was refused."""
    yield
    if request.node.get_closest_marker("server"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <s", ResourceWarning)
            gc.collect()
