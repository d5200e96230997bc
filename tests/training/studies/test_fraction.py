"""The study of shares: what is shared is run once, shares are nested, and the report says who is ahead by how much."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_training.commands.study import study as command
from bartizan_training.data.pairs import read_pairs
from bartizan_training.recipe import Recipe
from bartizan_training.settings import PairsTable
from bartizan_training.studies.fraction import FractionStudy, Report
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys

WEAK = with_keys(CONTRASTIVE, name="weak", steps=2, data=None) + '\ndata = { path = "data", weak = {} }'
MINE = 'kind = "mine"\npath = "data"\ndepth = 5'
JUDGED = with_keys(CONTRASTIVE, name="judged", steps=3, batch_size=8, negatives="mine")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    toy.tower(folder / "tower", layers=1)
    toy.collection(folder / "data", queries=120)
    toy.collection(folder / "other", queries=20, seed=1)
    lines = [json.loads(line) for line in (folder / "data/corpus.jsonl").read_text().splitlines()]
    titled = [line | {"title": " ".join(line["text"].split()[:2])} for line in lines]
    (folder / "data/corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in titled))
    return folder


def test_a_share_is_part_of_every_larger_one_whatever_else_is_judged(bench: Path) -> None:
    chosen = [set(read_pairs(PairsTable(path=bench / "data", share=share)).queries) for share in (0.1, 0.3, 1.0)]
    assert chosen[0] < chosen[1] < chosen[2]
    assert len(chosen[1]) == pytest.approx(0.3 * len(chosen[2]), rel=0.1)


@pytest.mark.packaging
def test_the_study_shares_what_comes_before_and_compares(bench: Path) -> None:
    toy.recipe(bench, WEAK, MINE, JUDGED)
    arguments = ["fraction", str(bench / "recipe.toml"), "--data", str(bench / "data"), "--out", str(bench / "study")]
    arguments += ["--fractions", "0.3,1"]
    run = CliRunner().invoke(command, [*arguments, "--elsewhere", str(bench / "other")])
    assert run.exit_code == 0, run.output
    report = Report.model_validate_json((bench / "study/study.json").read_text())
    home = [row for row in report.rows if row.at_home]
    assert [row.fraction for row in home] == [0, 0.3, 1]
    assert home[0].queries == 0
    assert home[1].queries == pytest.approx(0.3 * home[2].queries, rel=0.1)  # equal texts are one
    assert home[2].against_all is None
    assert home[1].against_all
    gap = home[1].metrics["nDCG@10"] - home[2].metrics["nDCG@10"]
    assert home[1].against_all["nDCG@10"].mean == pytest.approx(gap)
    assert {row.collection for row in report.rows if not row.at_home} == {"other"}
    weak = [next((bench / "study" / run / "artefacts/weak-towers").iterdir()) for run in ("before", "0.3", "1")]
    weights = [folder / "document/model.safetensors" for folder in weak]
    assert len({weight.stat().st_ino for weight in weights}) == 1  # one training, linked
    stages = [json.loads(line) for line in (bench / "study/0.3/metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in stages} <= {1, 3}
    before = (bench / "study/1/towers/query/model.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(command, arguments).exit_code == 0  # nothing is trained again
    assert (bench / "study/1/towers/query/model.safetensors").stat().st_mtime_ns == before


def test_a_recipe_without_judged_queries_and_a_share_of_none_are_refused(bench: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, WEAK))
    with pytest.raises(WrongUse, match="no step of 'toy' learns from judged queries"):
        FractionStudy(recipe=recipe, out=tmp_path)
    with pytest.raises(WrongUse, match="fractions are above 0 and at most 1, got 0"):
        FractionStudy(recipe=Recipe.load(toy.recipe(bench, JUDGED)), out=tmp_path, fractions=[0.0])
    both = with_keys(CONTRASTIVE, data=None) + '\ndata = { path = "data", weak = {}, negatives = "n.jsonl" }'
    with pytest.raises(WrongUse, match="weak pairs are made of documents alone"):
        Recipe.load(toy.recipe(bench, both))
