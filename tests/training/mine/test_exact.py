"""Mined negatives against sorting everything, and a later step that learns from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.local import TorchEncoder
from bartizan_training.data.collections import BeirData
from bartizan_training.data.negatives import read_negatives
from bartizan_training.loop import train
from bartizan_training.mine.exact import Mine
from bartizan_training.recipe import Recipe
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys

MINE = """
kind = "mine"
path = "data"
skip = 2
depth = 9
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with a document twice under two ids, and with a query that is asked under two ids."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    data = BeirData.read(folder / "data")
    document, query = next(iter(data.corpus)), next(iter(data.qrels("train")))
    with (folder / "data/corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "again", "title": "", "text": data.corpus[document]}) + "\n")
    with (folder / "data/queries.jsonl").open("a") as queries:
        queries.write(json.dumps({"_id": "asked-again", "text": data.queries[query]}) + "\n")
    with (folder / "data/qrels/train.tsv").open("a") as qrels:
        qrels.write("asked-again\td7\t1\nq1\td7\t0\n")
    torch.set_num_threads(1)
    return folder


def mined(folder: Path, *steps: str) -> dict[str, list[str]]:
    train(Recipe.load(toy.recipe(folder, *steps)), folder / "run")
    (found,) = (folder / "run").glob("artefacts/mine-negatives/*/negatives.jsonl")
    return read_negatives(found)


def test_negatives_are_the_nearest_that_nobody_judged_positive(bench: Path) -> None:
    found = mined(bench, MINE)
    data = BeirData.read(bench / "data")
    encoder = TorchEncoder.open(bench / "tower")
    ids = [id for id in sorted(data.corpus) if id != "d0"]  # a text once, under its first id, which is "again"
    documents = encoder.encode([data.corpus[id] for id in ids], "document").values.astype(np.float64)
    judged = data.qrels("train")
    assert found.keys() == judged.keys()
    vectors = encoder.encode([data.queries[query] for query in found], "query").values.astype(np.float64)
    for (query, negatives), vector in zip(found.items(), vectors, strict=True):
        positive = {
            data.corpus[document]
            for other, grades in judged.items()
            if data.queries[other] == data.queries[query]
            for document, grade in grades.items()
            if grade >= 1
        }
        scores = documents @ vector
        ranked = [n for n in np.argsort(-scores, kind="stable") if data.corpus[ids[n]] not in positive]
        # Batches of another shape round otherwise in the last place: what is as near as the last may come instead.
        expected, last = [ids[n] for n in ranked[2:9]], scores[ranked[8]]
        assert len(negatives) == 7
        assert not {data.corpus[id] for id in negatives} & positive
        for mine, theirs in zip(negatives, expected, strict=True):
            assert scores[ids.index(mine)] == pytest.approx(scores[ids.index(theirs)], abs=1e-5)
        assert min(scores[ids.index(id)] for id in negatives) >= last - 1e-5
    assert not (bench / "run/towers").exists()


def test_a_later_step_takes_the_negatives_by_name(bench: Path, tmp_path: Path) -> None:
    text = with_keys(CONTRASTIVE, steps=6, log_every=1)
    first = with_keys(text, name="first")
    second = with_keys(text, name="second", document="start.document", query="start.query", negatives="mine")
    run = tmp_path / "run"
    train(Recipe.load(toy.recipe(bench, first, with_keys(MINE, document="start", query="start"), second)), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {stage: [line["loss"] for line in lines if line["stage"] == stage] for stage in (1, 3)}
    assert [line["stage"] for line in lines] == [1] * 6 + [3] * 6
    assert losses[3][0] > losses[1][0] + 0.3  # twice the documents to be told from, and near ones
    origin = json.loads(next(run.glob("artefacts/second-towers/*/made_from.json")).read_text())
    (negatives,) = run.glob("artefacts/mine-negatives/*")
    assert origin["takes"]["negatives"] == negatives.name


def test_other_towers_other_settings_and_other_data_give_negatives_of_their_own(bench: Path, tmp_path: Path) -> None:
    step = Mine(kind="mine", path=bench / "data", depth=9)
    same = Mine(kind="mine", name="another", path=bench / "data", depth=9, document="start")
    deeper = Mine(kind="mine", path=bench / "data", depth=10)
    other = toy.collection(tmp_path / "data", seed=1)
    assert step.made_from() == same.made_from() != deeper.made_from()
    assert step.made_from()["data"] != Mine(kind="mine", path=other, depth=9).made_from()["data"]


def test_nothing_left_between_skip_and_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="skip = 5 leaves none of the depth = 5"):
        Mine(kind="mine", path=Path("data"), skip=5, depth=5)


def test_a_split_without_a_positive_is_refused_before_the_first_step(bench: Path, tmp_path: Path) -> None:
    (bench / "data/qrels/none.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    recipe = Recipe.load(toy.recipe(bench, CONTRASTIVE, with_keys(MINE, split="none")))
    with pytest.raises(WrongUse, match=r"step 2 \('mine'\): path: split 'none' .* judges no document positive"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
