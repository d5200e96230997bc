"""A copy is one moment of the truth whatever is written meanwhile; compacting gives room back and loses nothing."""

import threading
from pathlib import Path

import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.store.collection import Head
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.rows import COLLECTION, queries, row


def numbered(version: int) -> list[object]:
    return [row(f"d{i:03}", [1, i, 0, 0], title="x" * 500, year=version, version=version) for i in range(50)]


def test_a_backup_beside_a_writer_is_whole_and_can_be_written_at_once(tmp_path: Path) -> None:
    """Each batch replaces every row, so a copy that mixed two moments would hold two years."""
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    store = backend.open(COLLECTION)
    store.upsert(numbered(1))  # type: ignore[arg-type]
    stop = threading.Event()

    def write() -> None:
        version = 1
        while not stop.is_set():
            version += 1
            store.upsert(numbered(version))  # type: ignore[arg-type]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            backend.backup(tmp_path / f"copy{number}")
    finally:
        stop.set()
        writer.join()
    years = []
    for number in range(6):
        copy = EmbeddedBackend(tmp_path / f"copy{number}")
        copied = copy.open(COLLECTION, create=False)
        documents = list(copied.scan(vectors=True))
        assert len(documents) == 50
        (year,) = {document.rows[0].fields["year"] for document in documents}
        years.append(year)
        copied.delete([Head(id="d000", version=10**6)])  # the original's writer keeps nobody from writing here
        assert copied.count() == 49
        copy.close()
    assert years == sorted(years)
    assert store.count() == 50
    with pytest.raises(WrongUse, match="exists already"):
        backend.backup(tmp_path / "copy0")
    backend.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"copy{i}" for i in range(6)), "index.bartizan"]


def test_a_backup_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    backend.open(COLLECTION).upsert(numbered(1))  # type: ignore[arg-type]
    with pytest.raises(Stop):
        backend.backup(Path("/proc/nowhere/copy"))
    with pytest.raises(Stop, match="there is no store"):
        EmbeddedBackend(tmp_path / "other").backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    backend.close()


def test_compacting_gives_room_back_while_a_reader_keeps_its_indexes(tmp_path: Path) -> None:
    backend, reader = (EmbeddedBackend(tmp_path / "index.bartizan") for _ in range(2))
    store = backend.open(COLLECTION)
    for version in range(1, 4):
        store.upsert([row(f"d{i:05}", [1, i, 0, 0], title="x" * 900, year=i, version=version) for i in range(2_000)])
    other = reader.open(COLLECTION, create=False)
    before = other.search("dense", queries([0, 1, 0, 0]), 5)
    store.delete([Head(id=f"d{i:05}", version=9) for i in range(1_500)])
    assert backend.compact() > 1_000_000
    for each in (store, other):
        assert each.search("dense", queries([0, 1, 0, 0]), 5) == before
        assert each.count() == 500
    store.upsert([row("new", [0, 10**6, 0, 0], version=10)])
    assert other.search("dense", queries([0, 1, 0, 0]), 1)[0][0].id == "new"
    assert backend.compact() >= 0
    reader.close()
    backend.close()
