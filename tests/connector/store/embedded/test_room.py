"""No room at any write: a clear error, the old state served, and on it goes when there is room."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded import place as places
from bartizan_connector.testing.rows import COLLECTION, queries, row
from tests.connector.store.embedded.test_kills import ROOT


@pytest.mark.packaging
@pytest.mark.parametrize("size", [1_000, 8_192, 30_000, 90_000, 150_000, 222_222, 350_000, 500_000, 777_777])
def test_a_full_disk_at_any_write(tmp_path: Path, size: int) -> None:
    folders = [ROOT / name for name in ("connector", "encoders", "training", "triton_models")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}
    words = [sys.executable, "-m", "tests.connector.store.embedded.full", str(tmp_path / "index.bartizan"), str(size)]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def filled(path: Path) -> EmbeddedBackend:
    backend = EmbeddedBackend(path)
    backend.open(COLLECTION).upsert([row(f"d{i}", [i, 0, 0, 0], title="t" * 500) for i in range(500)])
    return backend


def test_searching_needs_no_room_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite wants two files of its own beside the store; where it cannot make them, the store is read without."""
    path = tmp_path / "index.bartizan"
    filled(path).close()
    connect = sqlite3.connect

    def without_room(name: str, **given: object) -> sqlite3.Connection:
        if "immutable" not in name:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, **given)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(places.sqlite3, "connect", without_room)
    reader = EmbeddedBackend(path)
    store = reader.open(COLLECTION, create=False)
    (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
    assert hits[0].id == "d499"
    monkeypatch.setattr(places.sqlite3, "connect", connect)
    writer = EmbeddedBackend(path)
    writer.open(COLLECTION).upsert([row("new", [9999, 0, 0, 0])])
    (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
    assert hits[0].id == "new", "once somebody writes, the reader sees it"
    writer.close()
    reader.close()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.7, 0.99])
def test_a_file_that_was_copied_only_halfway_is_told_as_such(tmp_path: Path, share: float) -> None:
    path, half = tmp_path / "index.bartizan", tmp_path / "half.bartizan"
    filled(path).close()
    content = path.read_bytes()
    half.write_bytes(content[: int(len(content) * share)])
    backend = EmbeddedBackend(half)
    with pytest.raises(Stop, match=r"damaged or was copied only halfway|not a store"):
        backend.open(COLLECTION)
    backend.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_page_is_told_as_such_or_does_no_harm(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "index.bartizan"
    filled(path).close()
    content = bytearray(path.read_bytes())
    place = (seed * 8192 * len(content) // (12 * 8192)) // 8192 * 8192 + (100 if seed == 0 else 0)
    content[place : place + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    backend, told = EmbeddedBackend(path), ""
    try:
        store = backend.open(COLLECTION, create=False)
        store.search("dense", queries([1, 0, 0, 0]), 10)
        list(store.scan(vectors=True))
        store.upsert([row("d3", [1, 0, 0, 0], version=2)])
    except BartizanError as error:
        told = str(error)
    finally:
        backend.close()
    assert not told or "is damaged or was copied only halfway" in told, told


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 3\x00" + bytes(4080), bytes(5000), b"\x89PNG" * 100])
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.bartizan"
    path.write_bytes(content)
    with pytest.raises(Stop, match=r"not a store of Bartizan|damaged"):
        EmbeddedBackend(path).open(COLLECTION)
    assert path.read_bytes() == content


def test_a_folder_or_a_place_without_right_is_told(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="is a folder, and no store"):
        EmbeddedBackend(tmp_path).open(COLLECTION)
    (tmp_path / "file").write_text("")
    with pytest.raises(Stop, match="cannot be used"):
        EmbeddedBackend(tmp_path / "file" / "index.bartizan").open(COLLECTION)


def test_a_log_left_by_a_file_that_was_taken_away_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "index.bartizan"
    backend = filled(path)
    shutil.copy(f"{path}-wal", tmp_path / "log")
    backend.close()
    path.unlink()
    shutil.copy(tmp_path / "log", f"{path}-wal")
    fresh = EmbeddedBackend(path)
    assert fresh.open(COLLECTION).count() == 0
    fresh.close()


def test_damaged_or_missing_indexes_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_connector.store.embedded.building._FEWEST", 100)
    path = tmp_path / "index.bartizan"
    backend = EmbeddedBackend(path, index="hnsw")
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{i:04}", [i, i % 7, 0, 0]) for i in range(3000)])
    backend.close()
    folder = path.with_name("index.bartizan-indexes")
    (graph,) = folder.glob("*.hnsw")
    whole = graph.read_bytes()
    for content in (whole[:1000], b"", whole[:-1], whole[:5000] + b"\x00" * 3000 + whole[8000:], None):
        if content is None:
            shutil.rmtree(folder)
        else:
            graph.write_bytes(content)
        backend = EmbeddedBackend(path, index="hnsw")
        store = backend.open(COLLECTION, create=False)
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 3)
        assert [hit.id for hit in hits] == ["d2999", "d2998", "d2997"]
        store.reindex()
        backend.close()
        (graph,) = folder.glob("*.hnsw")
