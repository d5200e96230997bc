"""A Milvus Lite folder on a full disk: it is searched, and leaves nothing that the next run minds.

The real thing (a file system of 2 MiB) is tried in the lane `server`, where the machine lets us mount one.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pymilvus import MilvusClient

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.milvus import MilvusBackend, lite
from bartizan_connector.testing.rows import COLLECTION, queries, row
from tests.needs import unavailable


class Usage(NamedTuple):
    total: int = 1 << 20
    used: int = 1 << 20
    free: int = 0


def test_a_search_flushes_nothing_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MilvusBackend(str(tmp_path / "index.db"))
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{number}", [1, 0, 0, 0]) for number in range(600)])
    flushed: list[str] = []
    monkeypatch.setattr(MilvusClient, "flush", lambda self, name, **more: flushed.append(name))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage())
    assert len(store.search("dense", queries([1, 0, 0, 0]), 700)[0]) == 600
    assert flushed == []
    monkeypatch.undo()
    assert lite.has_room_to_flush(tmp_path / "index.db")
    assert len(store.search("dense", queries([1, 0, 0, 0]), 700)[0]) == 600
    backend.close()


def test_a_flush_that_fails_all_the_same_is_never_followed_by_less_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MilvusBackend(str(tmp_path / "index.db"))
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{number}", [1, 0, 0, 0]) for number in range(600)])

    def fail(*_: Any, **__: Any) -> None:
        raise Stop("no room")

    with monkeypatch.context() as patch:
        patch.setattr(MilvusClient, "flush", fail)
        with pytest.raises(Stop, match="no room"):
            store.search("dense", queries([1, 0, 0, 0]), 10)
    for look in (store.count, lambda: store.search("dense", queries([1, 0, 0, 0]), 10), lambda: store.heads(["d1"])):
        with pytest.raises(Stop, match=r"Make room and run again"):
            look()
    backend.close()
    again = MilvusBackend(str(tmp_path / "index.db"))
    assert again.open(COLLECTION, create=False).count() == 600
    again.close()


def test_a_collection_for_which_there_was_no_room_is_taken_away_by_the_next_run(tmp_path: Path) -> None:
    """As Milvus Lite leaves it, without a mark that anybody was killed."""
    path = tmp_path / "index.db"
    backend = MilvusBackend(str(path))
    backend.open(COLLECTION).upsert([row("a", [1, 0, 0, 0])])
    backend.close()
    for name, content in (("half__00000001", "{"), ("none__00000002", None)):
        left = path / "collections" / name
        left.mkdir()
        (left / "schema.json.tmp").write_text("{")
        if content:
            (left / "schema.json").write_text(content)
    again = MilvusBackend(str(path))
    assert list(again.collections().values()) == [COLLECTION]
    assert again.open(COLLECTION).count() == 1
    again.close()
    assert not [each for each in (path / "collections").iterdir() if each.name.startswith(("half", "none"))]


FULL = """
import os, sys
from pathlib import Path
from bartizan_connector.base.errors import Stop
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.rows import COLLECTION, queries, row
from tests.needs import unavailable
place = Path(sys.argv[1])
def fill():
    with open(place / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
early = MilvusBackend(str(place / "early.db"))
fill()
try:
    early.open(COLLECTION)
except Stop as error:
    print("refused" if "Make room and run again" in str(error) else error)
early.close()
os.unlink(place / "filler")
early = MilvusBackend(str(place / "early.db"))
early.open(COLLECTION).upsert([row("a", [1, 0, 0, 0])])
print(early.open(COLLECTION).count())
early.close()
words = WordIndex(place / "words", "docs")
words.upsert([row("a", [1, 0, 0, 0], text="word")])
words.close()
backend = MilvusBackend(str(place / "index.db"))
store = backend.open(COLLECTION)
store.upsert([row(f"d{number}", [1, 0, 0, 0]) for number in range(600)])
fill()
for _ in range(2):
    hits = store.search("dense", queries([1, 0, 0, 0]), 700)[0]
    print(len(hits), len(WordIndex(place / "words", "docs").search("word", 9)))
    backend.close()
    backend = MilvusBackend(str(place / "index.db"))
    store = backend.open(COLLECTION, create=False)
backend.close()
"""


@pytest.mark.server
def test_on_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m none "$1" && exec "$2" -c "$3" "$1"', "sh"]
    ran = subprocess.run([*mount, str(tmp_path), sys.executable, FULL], capture_output=True, text=True, timeout=120)
    if "mount" in ran.stderr or "unshare" in ran.stderr:
        unavailable("this machine lets us mount nothing")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n")[:4] == ["refused", "1", "600 1", "600 1"]


def test_a_log_that_another_thread_has_just_flushed_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.db"
    gone = path / "collections" / "docs" / "wal" / "wal_data_000001.arrow"
    path.mkdir()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([gone]))
    assert lite.has_room_to_flush(path)
