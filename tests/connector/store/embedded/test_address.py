"""Which back-end an address means."""

from pathlib import Path

import pytest

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.settings import BackendSettings


@pytest.mark.parametrize(
    ("uri", "kind", "is_file"),
    [
        ("index.bartizan", EmbeddedBackend, True),
        ("some/folder/vectors", EmbeddedBackend, True),
        ("index.db", MilvusBackend, True),
        ("milvus-lite:vectors", MilvusBackend, True),
        ("milvus-lite:index.db", MilvusBackend, True),
        ("http://localhost:19530", MilvusBackend, False),
        ("https://example.org/db", MilvusBackend, False),
        ("memory:", MemoryBackend, False),
    ],
)
def test_the_address_decides(tmp_path: Path, uri: str, kind: type, is_file: bool) -> None:
    settings = BackendSettings(uri=uri)
    assert settings.is_file is is_file
    assert settings.is_embedded is (kind is EmbeddedBackend)
    beside = settings.beside(tmp_path)
    assert (str(tmp_path) in beside.uri) is is_file
    assert beside.uri.startswith("milvus-lite:") is uri.startswith("milvus-lite:")
    backend = beside.open()
    assert type(backend) is kind
    backend.close()
    assert list(tmp_path.iterdir()) == [], "nothing is made before a collection is opened"


def test_the_default_is_the_embedded_store() -> None:
    assert BackendSettings().is_embedded
