"""Commits of the word index: no search waits for one, and one that did not come to its end spoils no later one."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.search.words.leftovers import left_behind
from bartizan_connector.store.collection import Row


def rows(*ids: str, hash: str = "h") -> list[Row]:
    return [Row(id=id, fields={"text": "word"}, version=1, hash=hash) for id in ids]


def fill(folder: Path, *ids: str, hash: str = "h") -> None:
    index = WordIndex(folder, "docs")
    index.upsert(rows(*ids, hash=hash))
    index.close()


def found(folder: Path) -> set[str]:
    return {hit.id for hit in WordIndex(folder, "docs").search("word", 1000)}


class SlowWriter:
    """A writer whose commit begins when it says, and ends when it is let go."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.committing, self.go_on = Event(), Event()

    def commit(self) -> None:
        self.committing.set()
        assert self.go_on.wait(60)
        self._writer.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def test_a_search_never_waits_for_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = WordIndex(tmp_path, "docs")
    index.upsert(rows("a", "b"))
    slow = SlowWriter(index._open_writer())
    monkeypatch.setattr(index, "_writer", slow)
    writing = Thread(target=index.upsert, args=(rows("c"),))
    writing.start()
    assert slow.committing.wait(60)
    begun = time.perf_counter()
    for _ in range(10):
        assert [hit.id for hit in index.search("word", 10)] == ["a", "b"]
        assert index.hashes(["a", "c"]) == {"a": "h"}
    assert time.perf_counter() - begun < 5
    assert writing.is_alive()
    slow.go_on.set()
    writing.join(60)
    assert [hit.id for hit in index.search("word", 10)] == ["a", "b", "c"]
    index.close()


def test_a_deletion_that_was_written_but_not_committed_spoils_no_later_one(tmp_path: Path) -> None:
    """What a process leaves that dies between the two, made by hand: new deletions beside the old `meta.json`."""
    folder = tmp_path / "words"
    fill(folder, "a", "b", "c")
    shutil.copy(folder / "meta.json", tmp_path / "before.json")
    before = set(folder.glob("*.del"))
    index = WordIndex(folder, "docs")
    index.delete(["a"])
    index.close()
    assert set(folder.glob("*.del")) - before
    assert left_behind(folder) == []
    shutil.copy(tmp_path / "before.json", folder / "meta.json")
    assert len(left_behind(folder)) == 1
    assert found(folder) == {"a", "b", "c"}
    again = WordIndex(folder, "docs")
    again.delete(["a"])
    again.upsert(rows("b", hash="new"))
    again.close()
    assert found(folder) == {"b", "c"}
    assert WordIndex(folder, "docs").hashes(["a", "b", "c"]) == {"b": "new", "c": "h"}


CHANGE = """
import sys
from pathlib import Path
from bartizan_connector.base.errors import Retry
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.collection import Row
index = WordIndex(Path(sys.argv[1]), "docs")
index.upsert([Row(id=f"d{i}", fields={"text": "word"}, version=1, hash="new") for i in range(20)])
"""


@pytest.mark.packaging
def test_killed_during_a_commit_the_same_change_succeeds_when_it_comes_again(tmp_path: Path) -> None:
    """Killed as soon as the commit's file of deletions is seen, which mostly is before the commit is whole (three such
    deaths are enough; the state that they leave is also made by hand above)."""
    folder = tmp_path / "words"
    ids = [f"d{i}" for i in range(40)]
    deaths_in_between = 0
    for _ in range(12):
        fill(folder, *ids, hash="old")
        known = set(folder.glob("*.del"))
        worker = subprocess.Popen([sys.executable, "-c", CHANGE, str(folder)])
        while not set(folder.glob("*.del")) - known and worker.poll() is None:
            pass
        worker.kill()
        worker.wait(60)
        deaths_in_between += bool(left_behind(folder))
        assert found(folder) == set(ids)
        fill(folder, *ids[:20], hash="new")
        assert found(folder) == set(ids)
        hashes = WordIndex(folder, "docs").hashes(ids)
        assert [hashes[id] for id in ids] == ["new"] * 20 + ["old"] * 20
        assert left_behind(folder) == []
        if deaths_in_between == 3:
            return


def test_what_was_announced_is_remembered_until_it_is_settled(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    index = WordIndex(folder, "docs")
    assert index.announced() == []
    index.announce(["a", 'odd "\n\u2028 id'])
    index.announce(["b", "a"])
    index.close()
    with (folder / "unsettled.jsonl").open("ab") as file:
        file.write(b'["cut o')
    again = WordIndex(folder, "docs")
    assert again.announced() == ["a", 'odd "\n\u2028 id', "b"]
    again.announce(["c"])
    assert again.announced() == ["a", 'odd "\n\u2028 id', "b", "c"]
    again.upsert(rows("a"))
    again.settle()
    assert again.announced() == WordIndex(folder, "docs").announced() == []
    again.close()


def test_only_who_may_write_may_announce(tmp_path: Path) -> None:
    first, second = WordIndex(tmp_path, "docs"), WordIndex(tmp_path, "docs")
    first.announce(["a"])
    with pytest.raises(Retry, match="another process"):
        second.announce(["b"])
    first.close()
