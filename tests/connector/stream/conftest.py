"""What the tests of the stream share: a look at the threads."""

import threading
import time
from collections.abc import Iterator

import pytest

_ENDING_SECONDS = 10.0


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Fails a test that leaves one; those that are ending, as a server's do behind its stop, are waited for."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _ENDING_SECONDS
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before
