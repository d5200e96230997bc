"""What 0.1.0 wrote is searched as it stands: its exports, its collection and its word index."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.config import Config
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.collection import Row

FIXTURES = Path(__file__).parents[2] / "fixtures/0.1.0"
KNOWN: dict[str, Any] = json.loads((FIXTURES / "known.json").read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy: opening it writes into it."""
    return Path(shutil.copytree(FIXTURES, tmp_path / "old"))


def test_its_word_index_is_searched_and_goes_on_being_written(folder: Path) -> None:
    index = WordIndex(folder / "words", "docs")
    hashes = {id: head["hash"] for id, head in KNOWN["heads"].items() if not head.get("deleted")}
    assert index.hashes(list(KNOWN["heads"])) == hashes
    assert {hit.id for hit in index.search("tower", 10)} == set(hashes)
    index.upsert([Row(id="new", fields={"text": "another tower"}, version=1, hash="h")])
    index.delete([next(iter(hashes))])
    index.close()
    assert {hit.id for hit in WordIndex(folder / "words", "docs").search("tower", 10)} == {*hashes, "new"} - {
        next(iter(hashes))
    }


def test_its_collection_is_searched_by_all_legs(folder: Path) -> None:
    (folder / "bartizan.toml").write_text(
        """
        [collection]
        name = "docs"
        fields = [{ name = "year", type = "int", default = 0 }]
        [spaces.dense]
        document_tower = "exports/document"
        query_tower = "exports/query"
        [backend]
        uri = "index.db"
        lexical = "words"
        """,
        encoding="utf-8",
    )
    with Retriever.open(Config.load(folder / "bartizan.toml", {})) as retriever:
        answer = retriever.search("one of two", filter="year > 2018")
    assert answer.degraded is None
    assert {result.id for result in answer} == {id for id, head in KNOWN["heads"].items() if not head.get("deleted")}
    assert answer.tower_id == KNOWN["towers"]["exports/query"]["tower_id"]
    assert answer.space_id == KNOWN["towers"]["exports/query"]["space_id"]
