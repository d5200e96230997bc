"""Pairs and query logs out of the files that others write, without a query that is for testing."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.data.pairs import Pairs, read_pairs
from bartizan_training.data.texts import read_texts
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import Lines, Queries
from tests.training import toy
from tests.training.data.test_triples import save
from tests.training.toy import CONTRASTIVE

FORMS = ["jsonl", "parquet", "arrow", "arrow-file"]
ROWS = [
    {"anchor": "one", "positive": "p1", "negative": "n1", "qid": "7"},
    {"anchor": "two", "positive": "p2", "negative": "p1", "qid": "8"},
    {"anchor": "one", "positive": "p3", "negative": "p1", "qid": "7"},
]


def saved(folder: Path, form: str, rows: list[dict[str, str]]) -> Path:
    path = folder / f"records.{form.split('-')[0]}"
    save(path, rows, as_file=form == "arrow-file")
    return path


def pairs(*files: Path, **keys: object) -> Pairs:
    return read_pairs(PairRecords.model_validate({"kind": "records", "files": files, "query": "anchor", **keys}))


@pytest.mark.parametrize("form", FORMS)
def test_records_of_one_query_are_together_and_a_positive_is_no_negative(tmp_path: Path, form: str) -> None:
    found = pairs(saved(tmp_path, form, ROWS))
    named = [
        (query, *({found.documents[n] for n in row} for row in rows))
        for query, *rows in zip(found.queries, found.positives, found.negatives or (), strict=True)
    ]
    assert named == [("one", {"p1", "p3"}, {"n1"}), ("two", {"p2"}, {"p1"})]
    assert len(pairs(saved(tmp_path, form, ROWS), limit=2).positives[0]) == 1
    assert pairs(saved(tmp_path, form, [{"anchor": "a", "positive": "p"}])).negatives is None


@pytest.mark.parametrize("form", FORMS)
def test_a_test_query_is_left_out_by_id_and_by_text(folder: Path, tmp_path: Path, form: str) -> None:
    header = "query-id\tcorpus-id\tscore"
    (folder / "qrels/test.tsv").write_text(f"{header}\nq5\td2\t1\n")
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write(json.dumps({"_id": "q5", "text": "To be  Kept"}) + "\n")
    rows = [
        {"anchor": anchor, "positive": "p", "qid": id} for anchor, id in (("to be kept", "1"), ("x", "q5"), ("y", "2"))
    ]
    path = saved(tmp_path, form, rows)
    assert pairs(path).queries == ("to be kept", "x", "y")
    assert pairs(path, held_out=folder).queries == ("x", "y")
    assert pairs(path, held_out=folder, id="qid").queries == ("y",)
    log = Lines(kind="lines", path=path, column="anchor", held_out=folder)
    assert read_texts([log], seed=[0]) == ("x", "y")
    with pytest.raises(WrongUse, match=r"has no pair to learn from: its 2 queries are for testing"):
        pairs(path, held_out=folder, id="qid", limit=2)
    assert "To be  Kept" not in read_texts([Queries(kind="queries", path=folder)], seed=[0])
    with_it = Queries(kind="queries", path=folder, split="test")
    assert read_texts([with_it], seed=[0]) == ("To be  Kept",)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_row_is_named_by_file_and_place(tmp_path: Path, form: str) -> None:
    place = r"records.jsonl:2" if form == "jsonl" else rf"records.{form.split('-')[0]}: record 2"
    path = saved(tmp_path, form, [ROWS[0], ROWS[1] | {"positive": " "}])
    with pytest.raises(WrongUse, match=rf"{place}: expected a text as 'positive'"):
        pairs(path)
    with pytest.raises(WrongUse, match=r"record 1|jsonl:1.*expected a text as 'question'; it has anchor, positive"):
        read_texts([Lines(kind="lines", path=path, column="question")], seed=[0])
    with pytest.raises(WrongUse, match=r"it has no 'hard'; it has anchor, positive, negative, qid"):
        pairs(path, negatives="hard")


def test_a_recipe_trains_on_records_and_refuses_mined_negatives_for_them(tmp_path: Path) -> None:
    toy.tower(tmp_path / "tower", layers=1)
    rows = [{"query": f"ask{i}", "positive": f"thing{i}"} for i in range(toy.THINGS)]
    saved(tmp_path, "parquet", rows)
    step = CONTRASTIVE.replace('{ path = "data" }', '{ kind = "records", files = ["records.parquet"] }')
    path = toy.recipe(tmp_path, step.replace("steps = 100", "steps = 2"))
    train(Recipe.load(path), tmp_path / "run")
    assert (tmp_path / "run/towers/query").is_dir()
    with pytest.raises((WrongUse, ValidationError), match=r"is for a BEIR folder; records bring their own"):
        Recipe.load(toy.recipe(tmp_path, step + 'negatives = "mine"'))
