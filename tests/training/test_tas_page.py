"""docs/recipes.md on TAS-Balanced: its tables are the recipe's tables, and the shipped recipe runs as the page says."""

import re
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from bartizan_connector.space.spec import TowerSpec
from bartizan_training.data.triple_tables import HeldOutTable, Judged, Records, TripleLines
from bartizan_training.loop import train
from bartizan_training.mine.cluster import Cluster
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.settings import Training
from bartizan_training.stages.cross_encoder import CrossEncoding
from bartizan_training.stages.late_interaction import LateInteracting
from bartizan_training.stages.tas_balanced import DualSupervision, TasBalanced
from bartizan_training.stages.triples import FromScores, FromTriples
from bartizan_training.step import Step
from bartizan_training.teachers.score import Score
from tests.training import toy
from tests.training.test_train_page import PAGE, rendered

TABLES: dict[str, type[BaseModel]] = {
    "Every step that learns from triples": FromTriples,
    "cross_encoder": CrossEncoding,
    "score": Score,
    "late_interaction": LateInteracting,
    "cluster": Cluster,
    "tas_balanced": TasBalanced,
    "triples: judged": Judged,
    "triples: tsv": TripleLines,
    "triples: records": Records,
    "loss: dual supervision": DualSupervision,
}
SAID_BEFORE = (Step, Training, FromTriples)


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_under_each_heading_is_the_recipes(heading: str) -> None:
    sections = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in sections if part.split("\n")[0].strip("`") == heading]
    rows = [line for line in found.split("\n") if line.startswith("| `")]
    expected = rendered(TABLES[heading], SAID_BEFORE)
    assert rows == expected, "the page should say:\n" + "\n".join(expected)
    assert all(field.description for field in TABLES[heading].model_fields.values())


def test_the_keys_that_are_said_once_are_those_of_each_kind() -> None:
    for kind in (CrossEncoding, LateInteracting, TasBalanced):
        assert issubclass(kind, FromTriples)
    assert issubclass(LateInteracting, FromScores)
    assert issubclass(TripleLines, HeldOutTable)


@pytest.mark.packaging
def test_the_small_recipe_goes_from_one_tower_to_two_evaluated_ones(tmp_path: Path) -> None:
    """Every step of the shipped file, with lengths that a toy tower has positions for and few steps."""
    toy.bench(tmp_path)
    text = shipped()["tas_b-small"].read_text(encoding="utf-8")
    for key, value in {"steps": 2, "query_tokens": 8, "document_tokens": 12, "clusters": 4}.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.MULTILINE)
    text = text.replace('backbone = "minilm"', f'backbone = "{tmp_path / "tower"}"')
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    torch.set_num_threads(1)
    recipe = Recipe.load(tmp_path / "recipe.toml", tower=tmp_path / "tower", data=tmp_path / "data")
    train(recipe, tmp_path / "run")
    assert TowerSpec.read(tmp_path / "run/towers/query") == TowerSpec.read(tmp_path / "run/towers/document")
    kept = {path.parent.name for path in (tmp_path / "run/artefacts").glob("*/*")}
    steps = {"near-negatives", "pairs-cross_encoder", "margins-scores", "batches-late_interaction", "topics-clusters"}
    assert kept == {*steps, "tas_balanced-towers"}
    assert toy.found_first(tmp_path / "data", *(tmp_path / f"run/towers/{role}" for role in ("document", "query"))) >= 0


def test_the_large_recipe_reads_the_published_scores_and_takes_the_papers_values(tmp_path: Path) -> None:
    last = Recipe.load(shipped()["tas_b"]).steps[-1]
    assert isinstance(last, TasBalanced)
    assert isinstance(last.data, TripleLines)
    assert (last.batch_size, last.learning_rate, last.weight_decay, last.bins) == (32, 7e-6, 0.0, 10)
    assert (last.query_tokens, last.document_tokens, last.pooling, last.similarity) == (30, 200, "cls", "dot")
    assert (last.loss.w_pair, last.loss.w_in_batch) == (1.0, 0.75)


def test_other_data_takes_the_place_of_the_folder_that_ids_are_of_and_of_no_other_file(tmp_path: Path) -> None:
    keys = 'kind = "late_interaction"\nsteps = 1\nlearning_rate = 1\n'
    tables = (
        'data = { kind = "tsv", path = "a", held_out = "b" }',
        'data = { kind = "tsv", file = "t.tsv", queries = "q.tsv", collection = "c.tsv" }',
        'data = { kind = "records", files = ["r.jsonl"], held_out = "b" }',
    )
    path = toy.recipe(tmp_path, *(keys + table for table in tables))
    found = [step.data for step in Recipe.load(path, data=tmp_path / "d").steps]  # type: ignore[union-attr]
    assert [(table.path, table.held_out) for table in found[:2]] == [(tmp_path / "d", tmp_path / "d"), (None, None)]
    assert (found[2].files, found[2].held_out) == ((tmp_path / "r.jsonl",), tmp_path / "d")
