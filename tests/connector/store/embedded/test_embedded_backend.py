"""The embedded store conforms: in one file, new for each test, and opened again for each back-end."""

from pathlib import Path

import pytest

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.backend import BackendSuite


class TestEmbeddedBackend(BackendSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._path = tmp_path / "index.bartizan"

    def make(self) -> EmbeddedBackend:
        return EmbeddedBackend(self._path)


@pytest.mark.packaging
class TestEmbeddedBackendWithGraphs(TestEmbeddedBackend):
    """The same where every index is as small as it may be."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bartizan_connector.store.embedded.building._FEWEST", 0)
        monkeypatch.setattr("bartizan_connector.store.embedded.building._PAUSE", 0.0)

    def make(self) -> EmbeddedBackend:
        return EmbeddedBackend(self._path, index="hnsw")
