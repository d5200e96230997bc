"""Pairs out of documents alone: what asks for what, and that nothing else comes in."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import write_collection
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.weak import weak_pairs
from bartizan_training.settings import PairsTable, Weak

LONG = "The first sentence is here. A second one follows it. And the third ends all!"
DOCUMENTS = [
    {"_id": "a", "title": "About sentences", "text": LONG},
    {"_id": "b", "title": "", "text": "Only one sentence stands in this document."},
    {"_id": "c", "title": "Two words", "text": "Too short. Also short."},
    {"_id": "d", "text": "No title is given here. But two sentences are."},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    queries = [{"_id": "q1", "text": "about  SENTENCES"}, {"_id": "q2", "text": "two"}]
    write_collection(tmp_path / "data", DOCUMENTS, queries, {"train": [("q2", "c")]})
    return tmp_path / "data"


def test_a_title_asks_for_its_text(folder: Path) -> None:
    pairs = list(weak_pairs(folder, Weak(sentences=0)))
    assert pairs == [("About sentences", LONG), ("Two words", "Too short. Also short.")]


def test_a_sentence_asks_for_the_rest_of_its_document(folder: Path) -> None:
    pairs = list(weak_pairs(folder, Weak(titles=False, sentences=2, kept=0)))
    assert len(pairs) == 4
    for asked, answer in pairs:
        assert asked not in answer
        whole = next(record for record in DOCUMENTS if asked in record["text"])
        rest = " ".join(part for part in answer.removeprefix(whole.get("title", "")).split())
        assert sorted((f"{rest} {asked}").split()) == sorted(whole["text"].split())
    assert list(weak_pairs(folder, Weak(titles=False, sentences=2, kept=0))) == pairs
    kept = list(weak_pairs(folder, Weak(titles=False, sentences=2, kept=1)))
    assert all(asked in answer for asked, answer in kept)


def test_how_many_and_how_long_is_the_recipes_choice(folder: Path) -> None:
    assert len(list(weak_pairs(folder, Weak(titles=False, sentences=9, min_words=2)))) == 7
    assert len(list(weak_pairs(folder, Weak(titles=False, sentences=1, min_words=2)))) == 3
    seeds = {tuple(weak_pairs(folder, Weak(titles=False, seed=seed))) for seed in range(8)}
    assert len(seeds) > 1


def test_they_are_learned_from_like_judged_pairs_and_test_queries_are_left_out(folder: Path) -> None:
    pairs = read_pairs(PairsTable(path=folder, weak=Weak(sentences=0)))
    assert pairs.queries == ("About sentences", "Two words")
    assert pairs.positives == ((0,), (1,))
    assert pairs.negatives is None
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\n")
    assert read_pairs(PairsTable(path=folder, weak=Weak(sentences=0))).queries == ("Two words",)


def test_documents_that_make_no_pair_are_refused(tmp_path: Path) -> None:
    write_collection(tmp_path, [DOCUMENTS[1]], [{"_id": "q", "text": "x"}], {"train": [("q", "b")]})
    with pytest.raises(WrongUse, match="has a title beside its text, or a second sentence"):
        read_pairs(PairsTable(path=tmp_path, weak=Weak()))
