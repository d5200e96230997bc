"""The oracle itself: it conforms, and it agrees with arithmetic done by hand."""

from bartizan_connector import MemoryBackend
from bartizan_connector.testing.backend import BackendSuite


class TestMemoryBackend(BackendSuite):
    def make(self) -> MemoryBackend:
        return MemoryBackend()
