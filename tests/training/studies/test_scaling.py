"""The scaling study: each size on each share, kept when it is interrupted, and told as a table, JSON and a plot."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.commands.study import study
from bartizan_training.early_stop import Dev
from bartizan_training.recipe import Recipe
from bartizan_training.settings import EarlyStop
from bartizan_training.studies import scaling
from bartizan_training.studies.scaling import held_out_loss
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, with_keys

STEP = with_keys(CONTRASTIVE, steps=8, batch_size=8)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes on three shares."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    toy.recipe(folder, STEP, DISTIL)
    shown = studied(folder, "study")
    (folder / "shown.txt").write_text(shown)
    return folder


def studied(bench: Path, out: str, *more: str) -> str:
    words = ["scaling", str(bench / "recipe.toml"), "--data", str(bench / "data"), "--out", str(bench / out)]
    sizes = ["--layers", "1,3", "--shares", "0.1,0.4,1"]
    result = CliRunner().invoke(study, [*words, *sizes, *more], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.packaging
def test_each_size_is_trained_on_each_share_as_often_as_on_all(bench: Path) -> None:
    outcome = json.loads((bench / "study/study.json").read_text())
    cells = outcome["cells"]
    assert [(cell["layers"], cell["share"]) for cell in cells] == [(n, s) for n in (1, 3) for s in (0.1, 0.4, 1.0)]
    assert [cell["pairs"] for cell in cells[:3]] == [cell["pairs"] for cell in cells[3:]]
    assert cells[0]["pairs"] < cells[1]["pairs"] < cells[2]["pairs"]
    assert cells[3]["parameters"] == pytest.approx(3 * cells[0]["parameters"], rel=0.02)
    for cell in cells:
        run = bench / f"study/runs/{cell['layers']}-{cell['share']:g}"
        steps = Recipe.load(run / "recipe.toml").steps
        assert [step.kind for step in steps] == ["contrastive"]
        assert steps[0].steps == max(1, round(8 * cell["share"]))  # type: ignore[union-attr]
        assert Tower.load(run / "towers/query").backbone.config.num_hidden_layers == cell["layers"]
    assert len(outcome["law"]["residuals"]) == 6


def test_the_table_and_the_plot_tell_every_run(bench: Path) -> None:
    shown = (bench / "shown.txt").read_text()
    cells = json.loads((bench / "study/study.json").read_text())["cells"]
    for cell in cells:
        assert f"{cell['loss']:.3f}" in shown
    assert "of the variance" in shown
    assert (bench / "study/scaling.svg").read_text().count("<circle") == 6 + 2


def test_the_same_study_again_trains_nothing(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "train", None)
    assert studied(bench, "study") == (bench / "shown.txt").read_text()


def test_the_held_out_loss_is_a_cross_entropy_by_double_loop(bench: Path) -> None:
    dev = Dev.read(EarlyStop(data=bench / "data", split="test", every=1, patience=1, documents=5), seed=0)
    draw = np.random.default_rng(0)
    queries, documents = (
        draw.normal(size=(len(texts), 4)).astype(np.float32) for texts in (dev.queries, dev.documents)
    )
    found = []
    for query, grades in zip(queries.astype(np.float64), dev.grades, strict=True):
        for good in (document for document, grade in grades.items() if grade >= 1):
            scores = {n: float(documents[n].astype(np.float64) @ query) / 0.1 for n in range(len(documents))}
            rivals = [score for n, score in scores.items() if n == good or grades.get(n, 0) < 1]
            found.append(-np.log(np.exp(scores[good]) / np.exp(rivals).sum()))
    assert held_out_loss(queries, documents, dev, 0.1) == pytest.approx(np.mean(found), rel=1e-5)


@pytest.mark.parametrize(
    ("steps", "options", "why"),
    [
        ((DISTIL,), (), "has no step of kind 'contrastive' to study"),
        ((STEP, with_keys(STEP, document="start.document", query="start.query")), (), "one names what it takes"),
        ((STEP,), ("--layers", "x"), "--layers takes whole numbers"),
        ((STEP,), ("--shares", "2"), "a share is above 0 and at most 1"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    bench: Path, tmp_path: Path, steps: tuple[str, ...], options: tuple[str, ...], why: str
) -> None:
    toy.recipe(bench, *steps)
    with pytest.raises(WrongUse, match=why):
        studied(bench, "other", *options)
    assert not (bench / "other").exists()
