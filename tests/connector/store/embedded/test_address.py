"""Which back-end an address means."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.testing.rows import COLLECTION


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


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("  ", "is empty"),
        ("milvus-lite:", "is empty"),
        ("some/folder/", "must be the path of a file"),
        ("sqlite:index", "begins with 'sqlite:'"),
        ("memory:x", "begins with 'memory:'"),
    ],
)
def test_what_is_no_address_is_refused_with_those_that_are(uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"{told}.*give the path of a file"):
        BackendSettings(uri=uri)


def test_a_place_where_no_store_can_be_is_wrong_use(tmp_path: Path) -> None:
    """Exit code 2: the configuration is to be changed, nothing is damaged."""
    (tmp_path / "file").write_text("something else, and longer than a header of SQLite: " * 9, encoding="utf-8")
    for place in (tmp_path, tmp_path / "file", tmp_path / "file" / "index.bartizan"):
        for create in (True, False):
            with pytest.raises(WrongUse, match=r"\[backend\] uri"):
                EmbeddedBackend(place).open(COLLECTION, create=create)
