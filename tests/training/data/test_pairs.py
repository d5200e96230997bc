"""Pairs out of files: what is kept, what is folded together, what is refused."""

import json
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import write_collection
from bartizan_training.data.pairs import read_pairs
from bartizan_training.settings import PairsTable
from tests.training.data.conftest import QUERIES, write


def pairs_table(folder: Path, **keys: object) -> PairsTable:
    return PairsTable.model_validate({"path": folder, **keys})


def test_only_positive_judgements_are_pairs(folder: Path) -> None:
    pairs = read_pairs(pairs_table(folder))
    assert pairs.queries == ("pause", "are two files equal")
    assert [pairs.documents[d] for d in pairs.positives[1]] == ["Compare two files byte by byte."]


def test_a_query_asked_under_two_ids_has_the_documents_of_both(folder: Path) -> None:
    pairs = read_pairs(pairs_table(folder))
    texts = {pairs.documents[d] for d in pairs.positives[0]}
    assert texts == {"Sleep Suspend the program. It takes seconds, as a float!", "Short one."}


def test_a_document_with_the_text_of_a_positive_is_no_negative(folder: Path) -> None:
    mined = folder / "negatives.jsonl"
    lines = [
        {"query": "q1", "negatives": ["d2"]},
        {"query": "q2", "negatives": ["d3", "d1"]},
        {"query": "q3", "negatives": []},
    ]
    write(mined, [json.dumps(line) for line in lines])
    pairs = read_pairs(pairs_table(folder, negatives=mined))
    assert pairs.negatives is not None
    assert [pairs.documents[d][:5] for d in pairs.negatives[1]] == ["Sleep"]


def test_negatives_of_other_queries_altogether_are_refused(folder: Path) -> None:
    mined = folder / "negatives.jsonl"
    write(mined, [json.dumps({"query": "q9", "negatives": ["d2"]}), json.dumps({"query": "q2", "negatives": ["d3"]})])
    with pytest.raises(WrongUse, match="has no negative for any of the 2 queries of split 'train'"):
        read_pairs(pairs_table(folder, negatives=mined))


@pytest.mark.parametrize(
    "line", ["[]", '{"query": "q1"}', "{", '{"query": 1, "negatives": []}', '{"query": "q1", "negatives": [1]}']
)
def test_a_malformed_line_of_negatives_is_named(folder: Path, line: str) -> None:
    mined = folder / "negatives.jsonl"
    write(mined, [line])
    with pytest.raises(WrongUse, match=r"negatives.jsonl:1: expected \{\"query\": id"):
        read_pairs(pairs_table(folder, negatives=mined))


def test_a_negative_that_the_corpus_lacks_is_named(folder: Path) -> None:
    mined = folder / "negatives.jsonl"
    write(mined, [json.dumps({"query": "q1", "negatives": ["d9"]})])
    with pytest.raises(WrongUse, match="names document 'd9'"):
        read_pairs(pairs_table(folder, negatives=mined))


def test_a_split_without_a_positive_is_refused(folder: Path) -> None:
    with pytest.raises(WrongUse, match="judges no document positive"):
        read_pairs(pairs_table(folder, split="empty"))


def test_a_test_query_never_trains_by_its_id_or_its_text(folder: Path) -> None:
    header = "query-id\tcorpus-id\tscore"
    rows = [{"_id": id, "text": text} for id, text in (QUERIES | {"q5": "Are  two files EQUAL"}).items()]
    write(folder / "queries.jsonl", [json.dumps(row) for row in rows])
    write(folder / "qrels" / "test.tsv", [header, "q5\td2\t1", "q3\td4\t1"])
    with pytest.raises(WrongUse, match="positive but for 3 queries that are for testing, and are left out; there"):
        read_pairs(pairs_table(folder))  # q1 is the text of q3, q2 that of q5
    assert read_pairs(pairs_table(folder, split="test")).queries == ("Are  two files EQUAL", "pause")


def titled(folder: Path, documents: list[dict[str, str]]) -> PairsTable:
    write_collection(
        folder, documents, [{"_id": "q1", "text": "Held  OUT"}], {"train": [("q1", "d1")], "test": [("q1", "d1")]}
    )
    return PairsTable(path=folder, pairs="titles")


def test_titles_are_queries_for_what_stands_below_them(tmp_path: Path) -> None:
    documents = [
        {"_id": "d1", "title": "One", "text": "first text"},
        {"_id": "d2", "title": "", "text": "no title"},
        {"_id": "d3", "title": "One", "text": "second text"},
        {"_id": "d4", "title": "Two", "text": "first text"},
        {"_id": "d5", "title": "held out", "text": "the answer"},
        {"_id": "d6", "title": "bare", "text": ""},
    ]
    pairs = read_pairs(titled(tmp_path / "data", documents))
    assert (pairs.queries, pairs.documents) == (("One", "Two"), ("first text", "second text"))
    assert (pairs.positives, pairs.negatives) == (((0, 1), (0,)), None)


def test_titles_that_are_not_there_are_missed_aloud(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no document with both a title and a text"):
        read_pairs(titled(tmp_path / "data", [{"_id": "d1", "title": "", "text": "t"}]))


def test_titles_have_no_hard_negatives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with pairs = 'titles' leave them out"):
        PairsTable(path=tmp_path, pairs="titles", negatives=tmp_path / "mined.jsonl")
