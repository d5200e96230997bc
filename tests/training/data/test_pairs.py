"""Pairs out of files: what is kept, what is folded together, what is refused."""

import json
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pairs import Pairs, read_pairs
from bartizan_training.settings import PairsTable
from tests.training import toy
from tests.training.data.conftest import QUERIES, write

TITLES = {"sentences": 0}


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
    with pytest.raises(WrongUse, match=r"negatives.jsonl:1: expected a line \{\"query\": id"):
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


def test_a_title_is_to_find_its_text(folder: Path) -> None:
    rows = [("Sleep", "Suspend."), ("", "No title."), ("Sleep", "Pause."), ("  ", "Blank."), ("Empty", " ")]
    rows.append(("Copy", "Suspend."))
    lines = [json.dumps({"_id": str(i), "title": title, "text": text}) for i, (title, text) in enumerate(rows)]
    write(folder / "corpus.jsonl", lines)
    pairs = read_pairs(pairs_table(folder, weak=TITLES))
    assert pairs.queries == ("Sleep", "Copy")
    assert pairs.documents == ("Suspend.", "Pause.")
    assert pairs.positives == ((0, 1), (0,))
    assert pairs.negatives is None


def test_a_title_that_is_a_test_query_is_left_out(folder: Path) -> None:
    rows = [{"_id": "a", "title": " PAUSE", "text": "x"}, {"_id": "b", "title": "copy", "text": "y"}]
    write(folder / "corpus.jsonl", [json.dumps(row) for row in rows])
    write(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q1\ta\t1"])
    assert read_pairs(pairs_table(folder, weak=TITLES)).queries == ("copy",)


def test_documents_without_titles_give_no_weak_pairs(folder: Path) -> None:
    write(folder / "corpus.jsonl", [json.dumps({"_id": "a", "title": "", "text": "x"})])
    with pytest.raises(WrongUse, match=r"no document of .* has a title beside its text"):
        read_pairs(pairs_table(folder, weak=TITLES))
    with pytest.raises(ValueError, match="leave negatives out"):
        pairs_table(folder, weak=TITLES, negatives="n.jsonl")


def test_a_smaller_share_of_the_queries_is_part_of_a_larger_one(tmp_path: Path) -> None:
    toy.collection(tmp_path / "data", queries=200)
    whole = as_texts(read_pairs(pairs_table(tmp_path / "data")))
    some = [as_texts(read_pairs(pairs_table(tmp_path / "data", share=share))) for share in (0.1, 0.3, 0.6)]
    assert [len(pairs) for pairs in some] == [round(share * len(whole)) for share in (0.1, 0.3, 0.6)]
    for smaller, larger in zip(some, [*some[1:], whole], strict=True):
        assert smaller.items() <= larger.items()


def test_a_share_keeps_the_hard_negatives_of_its_queries(folder: Path) -> None:
    mined = folder / "negatives.jsonl"
    write(mined, [json.dumps({"query": "q1", "negatives": ["d2"]}), json.dumps({"query": "q2", "negatives": ["d1"]})])
    whole, half = (read_pairs(pairs_table(folder, negatives=mined, share=share)) for share in (1.0, 0.5))
    (kept,) = half.queries
    row = whole.queries.index(kept)
    assert whole.negatives
    assert half.negatives
    assert {half.documents[n] for n in half.negatives[0]} == {whole.documents[n] for n in whole.negatives[row]}


def as_texts(pairs: Pairs) -> dict[str, frozenset[str]]:
    rows = zip(pairs.queries, pairs.positives, strict=True)
    return {query: frozenset(pairs.documents[n] for n in good) for query, good in rows}
