"""What the tests on a broker leave behind: the library drops a socket for each connection that was refused."""

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _dropped_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("server"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <s", ResourceWarning)
            gc.collect()
