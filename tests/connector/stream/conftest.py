"""What the tests of the stream share: a look at the threads."""

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Fails a test that leaves one."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before
