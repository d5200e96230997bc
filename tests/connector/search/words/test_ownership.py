"""A word index belongs to one collection: others are refused, races have one winner, a crash leaves nothing stuck."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import tantivy

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.search.words.ownership import OWNER_FILE, owner_of, take
from bartizan_connector.store.collection import Row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "words"


def rows(*ids: str) -> list[Row]:
    return [Row(id=id, vectors={}, fields={"text": "word"}, version=1, hash="h") for id in ids]


def fill(folder: Path, collection: str, *ids: str) -> None:
    index = WordIndex(folder, collection)
    index.upsert(rows(*ids))
    index.close()


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found(folder: Path, collection: str) -> set[str]:
    return {hit.id for hit in WordIndex(folder, collection).search("word", 10)}


def test_another_collection_is_refused_before_anything_is_read_or_written(folder: Path) -> None:
    fill(folder, "docs", "a")
    before = listing(folder)
    with pytest.raises(WrongUse, match="belongs to collection 'docs', not to 'news'") as refusal:
        WordIndex(folder, "news")
    assert refusal.value.exit_code == 2
    assert "[backend] lexical" in str(refusal.value)
    assert listing(folder) == before
    assert found(folder, "docs") == {"a"}


def test_one_opened_while_the_folder_was_nobodys_is_refused_later(folder: Path) -> None:
    early = WordIndex(folder, "news")
    fill(folder, "docs", "a")
    uses: list[Callable[[], object]] = [
        lambda: early.search("word", 1),
        lambda: early.hashes(["a"]),
        lambda: early.upsert(rows("b")),
        lambda: early.delete(["a"]),
    ]
    for use in uses:
        with pytest.raises(WrongUse, match="belongs to collection 'docs'"):
            use()
    assert found(folder, "docs") == {"a"}


def removed(folder: Path) -> None:
    """As a person would: an open reader may put a lock file into a folder that is just being emptied."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def test_an_open_reader_never_answers_from_a_folder_that_was_given_to_another(folder: Path) -> None:
    fill(folder, "docs", "a")
    reader = WordIndex(folder, "docs")
    assert len(reader.search("word", 10)) == 1
    removed(folder)
    with pytest.raises(WrongUse, match="no word index"):
        reader.search("word", 10)
    fill(folder, "docs", "b")
    assert [hit.id for hit in reader.search("word", 10)] == ["b"]
    removed(folder)
    fill(folder, "news", "c")
    with pytest.raises(WrongUse, match="belongs to collection 'news'"):
        reader.search("word", 10)


def test_a_folder_that_an_older_version_filled_is_refused_with_the_way_out(folder: Path) -> None:
    fill(folder, "docs", "a")
    (folder / OWNER_FILE).unlink()
    with pytest.raises(
        Stop, match=r"older version\. Set \[backend\] lexical to a new folder and ingest again"
    ) as refusal:
        WordIndex(folder, "docs")
    assert refusal.value.exit_code == 1
    shutil.rmtree(folder)
    fill(folder, "docs", "a")
    assert found(folder, "docs") == {"a"}


@pytest.mark.parametrize("spoilt", ["", "{", "[]", "{}", "\x00"])
def test_a_damaged_file_of_the_owner_is_named(folder: Path, spoilt: str) -> None:
    fill(folder, "docs", "a")
    (folder / OWNER_FILE).write_text(spoilt)
    with pytest.raises(Stop, match=rf"{OWNER_FILE} is damaged.*Set \[backend\] lexical to a new folder"):
        WordIndex(folder, "docs")


def test_of_many_who_claim_at_once_one_is_first_and_the_others_are_told(folder: Path) -> None:
    names = [f"c{i}" for i in range(16)]
    together = Barrier(len(names))

    def race(name: str) -> str:
        together.wait()
        return take(folder, name)

    with ThreadPoolExecutor(len(names)) as pool:
        owners = set(pool.map(race, names))
    assert owners == {owner_of(folder)}
    assert [path.name for path in folder.iterdir()] == [OWNER_FILE]


def test_a_file_system_without_links_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert take(folder, "docs") == "docs"
    assert take(folder, "news") == "docs"
    assert owner_of(folder) == "docs"


@pytest.mark.parametrize(
    "step", ["os.fsync", "os.link", "tantivy.Index"], ids=["in the file", "before its name", "before the index"]
)
def test_a_death_at_any_step_of_making_it_leaves_it_usable(folder: Path, step: str) -> None:
    program = f"""
import os, signal, tantivy
from pathlib import Path
from bartizan_connector.store.collection import Row
from bartizan_connector.search.words import index as words
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{step} = die
words.WordIndex(Path({str(folder)!r}), "docs").upsert([Row(id="a", vectors={{}}, fields={{}}, version=1, hash="h")])
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -9
    assert not (folder / "meta.json").exists()
    fill(folder, "docs", "a")
    assert found(folder, "docs") == {"a"}
    tantivy.Index.open(str(folder))  # what is beside the index does not disturb it


@pytest.mark.parametrize("theirs", [{"tower.json": b"{}", "model.onnx": b"x"}, {"meta.json": b"{}"}, {"a/b": b"c"}])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(folder: Path, theirs: dict[str, bytes]) -> None:
    for name, content in theirs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with pytest.raises(WrongUse, match="holds something else than a word index") as refusal:
        WordIndex(folder, "docs")
    assert "remove" not in str(refusal.value).lower()
    assert listing(folder) == theirs


def test_one_opened_before_something_else_was_put_there_writes_nothing(folder: Path) -> None:
    early = WordIndex(folder, "docs")
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(WrongUse, match=r"thesis\.txt"):
        early.upsert(rows("a"))
    assert listing(folder) == {"thesis.txt": b"years of work"}


def test_a_file_in_its_place_is_refused(folder: Path) -> None:
    folder.write_text("x")
    with pytest.raises(WrongUse, match="is no folder"):
        WordIndex(folder, "docs")


def test_what_a_killed_first_writer_left_is_no_obstacle(folder: Path) -> None:
    folder.mkdir()
    (folder / f".{OWNER_FILE}.0123").write_text("{")
    fill(folder, "docs", "a")
    assert found(folder, "docs") == {"a"}
