"""The shipped small recipes on real text and the real models: killed, exported, ingested, searched.

Few steps over a part of SciFact: it is bits and agreement that are held to, not quality, which `python -m benchmarks
recipes` measures.
"""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.data.collections import BeirData, write_collection
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.evaluate.measuring import measure
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe, shipped
from bartizan_triton.export import export_tower
from benchmarks.collections import data_folder
from benchmarks.recipes import small
from tests.needs import unavailable
from tests.training import toy

pytestmark = [pytest.mark.data, pytest.mark.timeout(1800)]

STEPS = 3
TRAIN, TEST, OTHERS = 70, 10, 40
KILLED = {
    "scalingnote-small": ("1-titles", "3-distil_query", "4-refine_titles"),
    "csplade-small": ("1-adapt", "3-titles"),
    "tas_b-small": ("2-pairs", "4-batches", "6-tas_balanced"),
    "gtr-small": ("1-t5", "4-judged"),
}
"""Steps of each recipe that train; in which of them, and in which optimiser step, the run is killed, chance says."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of SciFact, with titles."""
    try:
        whole = data_folder() / "scifact"
    except WrongUse as missing:
        unavailable(str(missing))
    read = BeirData.read(whole)
    asked = {
        split: dict(sorted(read.qrels(split).items())[:most]) for split, most in (("train", TRAIN), ("test", TEST))
    }
    pairs = {
        split: [(query, id) for query, grades in judged.items() for id, grade in grades.items() if grade >= 1]
        for split, judged in asked.items()
    }
    kept = {id for judged in pairs.values() for _, id in judged} | set(sorted(read.corpus)[:OTHERS])
    with (whole / "corpus.jsonl").open(encoding="utf-8") as lines:
        documents = [record for line in lines if (record := json.loads(line))["_id"] in kept]
    folder = tmp_path_factory.mktemp("data") / "scifact"
    queries = [{"_id": id, "text": read.queries[id]} for judged in asked.values() for id in judged]
    write_collection(folder, documents, queries, pairs)
    return folder


@pytest.fixture(scope="module", params=sorted(KILLED))
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder with the recipe as a try-out of few steps, and its run from beginning to end."""
    folder = tmp_path_factory.mktemp(request.param)
    text = Recipe.load(shipped()[request.param], data=data).limited(STEPS).to_toml()
    text = re.sub(r"^checkpoint_every = \d+", "checkpoint_every = 1", text, flags=re.MULTILINE)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    train(Recipe.load(folder / "recipe.toml"), folder / "run")
    return folder


def test_every_small_recipe_is_tried() -> None:
    assert set(KILLED) == set(small())


def test_a_run_killed_at_a_random_step_gives_the_same_weights(run: Path) -> None:
    killed, step = run / "killed", random.choice(KILLED[Recipe.load(run / "recipe.toml").name])
    at = killed / "steps" / step / "checkpoints" / f"step-{random.randint(1, STEPS - 1):08}"
    print(at)
    toy.share_start(run / "run", killed)
    toy.train_and_kill(run / "recipe.toml", killed, at=at)
    train(Recipe.load(run / "recipe.toml"), killed, resume=True)
    for role in ("document", "query"):
        files = [folder / "towers" / role / "model.safetensors" for folder in (run / "run", killed)]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert TowerSpec.read(files[0].parent) == TowerSpec.read(files[1].parent)


def test_its_towers_are_exported_ingested_and_searched_as_they_are_judged(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = ("document", "query")
    for role in roles:
        export_tower(run / "run/towers" / role, run / role, "fp32")
    (run / "bartizan.toml").write_text(
        'collection = { name = "things" }\nspaces.only = { document_tower = "document", query_tower = "query" }\n'
        f'backend = {{ uri = "index.bartizan" }}\nsource = {{ path = "{data / "corpus.jsonl"}" }}\n',
        encoding="utf-8",
    )
    config = str(run / "bartizan.toml")
    assert code(["ingest", config]) == 0
    read = BeirData.read(data)
    answers = {}
    for query in read.qrels("test"):
        capsys.readouterr()
        assert code(["search", read.queries[query], "--config", config, "--json", "--k", "10"]) == 0
        answers[query] = [hit["id"] for hit in json.loads(capsys.readouterr().out)["results"]]
    judged = Evaluation(data=data, tower=run / "document", query_tower=run / "query").run()
    found = measure(read.qrels("test"), answers)
    assert found.metrics["nDCG@10"] == pytest.approx(judged.metrics["nDCG@10"], abs=0.02)
    each = [found.per_query[query]["nDCG@10"] == pytest.approx(judged.per_query[query]["nDCG@10"]) for query in answers]
    assert np.mean(each) >= 0.8  # near equal scores may change places


def code(words: list[str]) -> int | str | None:
    """What a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code or 0
