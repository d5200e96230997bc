"""What every part of BackendSuite stands on: an empty back-end, the suite's collection opened in it, all its rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pytest

from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.testing.rows import COLLECTION, found, queries


class OnBackend(ABC):
    """The fixtures of the suite."""

    settles: float = 0.0
    """Seconds after which a search of one thread sees what that thread wrote while others write, too."""

    @abstractmethod
    def make(self) -> Backend:
        """A back-end without any row of the suite's, and of its collections at most an empty `suite`."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = self.make()
        yield backend
        backend.close()

    @pytest.fixture
    def store(self, backend: Backend) -> Store:
        return backend.open(COLLECTION)

    def everything(self, store: Store) -> set[tuple[str, int]]:
        """All rows that a search can reach."""
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1000)
        return set(found(hits))
