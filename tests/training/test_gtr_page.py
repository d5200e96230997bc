"""docs/train.md on GTR and pre-training: its tables are the recipe's tables, and the shipped recipe runs as it says."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from bartizan_connector.space.spec import TowerSpec
from bartizan_training.loop import train
from bartizan_training.pretraining.sizes import Size
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.settings import Training, Weak
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.pretrain import Pretrain
from bartizan_training.step import Step
from tests.training import toy
from tests.training.test_train_page import PAGE, rendered

TABLES: dict[str, type[BaseModel]] = {"pretrain": Pretrain, "pretrain: model": Size, "data: weak": Weak}


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_under_each_heading_is_the_recipes(heading: str) -> None:
    sections = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in sections if part.split("\n")[0].replace("`", "") == heading]
    rows = [line for line in found.split("\n") if line.startswith("| `")]
    expected = rendered(TABLES[heading], (Step, Training))
    assert rows == expected, "the page should say:\n" + "\n".join(expected)
    assert all(field.description for field in TABLES[heading].model_fields.values())


@pytest.mark.packaging
def test_the_small_recipe_runs_from_a_collection_alone(tmp_path: Path) -> None:
    """Every step of the shipped file, with few steps of a smaller model."""
    toy.collection(tmp_path / "data", queries=120)
    lines = [json.loads(line) for line in (tmp_path / "data/corpus.jsonl").read_text().splitlines()]
    titled = [line | {"title": " ".join(line["text"].split()[:2])} for line in lines]
    (tmp_path / "data/corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in titled))
    text = shipped()["gtr-small"].read_text(encoding="utf-8")
    for key, value in (("steps", 2), ("batch_size", 8), ("vocabulary", 360), ("block", 24)):
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.MULTILINE)
    text = text.replace("hidden = 128, heads = 2, feed_forward = 256", "hidden = 16, heads = 2, feed_forward = 16")
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    train(Recipe.load(tmp_path / "recipe.toml"), tmp_path / "run")
    spec = TowerSpec.read(tmp_path / "run/towers/document")
    assert (spec.name, spec.dim, spec.head, spec.pooling, spec.normalise) == ("gtr-small", 768, "linear", "mean", True)
    assert TowerSpec.read(tmp_path / "run/towers/query") == spec
    assert {path.name for path in (tmp_path / "run/artefacts").iterdir()} == {
        "t5-tokenizer",
        "t5-towers",
        "weak-towers",
        "mine-negatives",
        "judged-towers",
    }


def test_the_large_recipe_has_the_papers_numbers() -> None:
    recipe = Recipe.load(shipped()["gtr"])
    first, second = (step for step in recipe.steps if isinstance(step, Contrastive))
    for step in (first, second):
        assert (step.batch_size, step.learning_rate, step.optimizer, step.tied) == (2048, 1e-3, "adafactor", True)
        assert (step.loss.temperature, step.loss.bidirectional, step.precision) == (0.01, True, "bf16")
        assert step.steps
        assert step.steps * step.warmup == 1000
    assert (first.steps, second.steps, second.data.negatives_per_query) == (800_000, 20_000, 1)
    assert recipe.model_dump()["tower"]["dim"] == 768
