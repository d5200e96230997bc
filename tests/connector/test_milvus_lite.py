"""MilvusBackend on a Milvus Lite file."""

from pathlib import Path

import pytest

from bartizan_connector.milvus import MilvusBackend
from bartizan_connector.testing.backend import BackendSuite


class TestMilvusLite(BackendSuite):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> MilvusBackend:
        return MilvusBackend(str(self.folder / "index.db"))
