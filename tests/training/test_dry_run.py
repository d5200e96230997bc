"""A dry run says what a run then does, and writes nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.data.pairs import read_pairs
from bartizan_training.dry_run import Forecast, forecast
from bartizan_training.gauge import gauge
from bartizan_training.recipe import Recipe
from bartizan_training.settings import PairsTable, Training
from tests.training import toy
from tests.training.commands.test_train_command import program
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

MINE = 'kind = "mine"\npath = "data"\ndepth = 5'
HARD = with_keys(CONTRASTIVE, steps=None, epochs=2, negatives="mine", document="start.document", query="start.query")
SCORED = """
kind = "cross_encoder"
steps = 3
batch_size = 4
learning_rate = 1e-3
query_tokens = 6
document_tokens = 7
data = { kind = "judged", path = "data" }
"""
SCORE = 'kind = "score"\nteacher = "cross_encoder"\ndata = { kind = "judged", path = "data" }'


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.bench(tmp_path_factory.mktemp("bench"))


def told(bench: Path, *steps: str, limit: int | None = None) -> tuple[Forecast, ...]:
    return forecast(Recipe.load(toy.recipe(bench, *steps), limit=limit))


def test_steps_and_tokens_are_those_that_the_run_then_has(bench: Path) -> None:
    """Every toy query is five tokens, every document seven."""
    warm, mined, hard, student, refined = told(
        bench, with_keys(CONTRASTIVE, steps=10), MINE, HARD, with_keys(DISTIL, layers=[0], epochs=1), REFINE
    )
    pairs = read_pairs(PairsTable(path=bench / "data"))
    examples = len(pairs.queries)
    stage = toy.stage(bench, HARD.replace('negatives = "mine"', ""))
    assert [found.kind for found in (warm, mined, hard, student, refined)] == [
        "contrastive", "mine", "contrastive", "distil_query", "refine",
    ]  # fmt: skip
    assert (warm.steps, warm.examples, warm.tokens) == (10, examples, 10 * 32 * (5 + 7))
    assert (mined.steps, mined.tokens) == (None, 360 * 5 + toy.DOCUMENTS * 7)
    assert (hard.steps, hard.tokens) == (2 * stage.batches_per_epoch, 2 * stage.batches_per_epoch * 32 * (5 + 2 * 7))
    assert student.tokens == (student.steps or 0) * 32 * 5 + student.examples * 5
    assert refined.tokens == 20 * 16 * 5 + len(pairs.documents) * 7
    assert all(
        found.seconds and found.seconds > 0 and found.memory > 0 for found in (warm, mined, hard, student, refined)
    )


def test_a_try_out_is_told_as_one(bench: Path) -> None:
    warm, student = told(bench, CONTRASTIVE, DISTIL, limit=2)
    assert (warm.steps, student.steps, student.examples) == (2, 2, 64)


def test_triples_are_told_and_what_only_a_step_can_know_is_not(bench: Path) -> None:
    teacher, scores = told(bench, SCORED, SCORE)
    assert (teacher.steps, teacher.tokens) == (3, 3 * 4 * (5 + 2 * 7))
    assert (scores.steps, scores.seconds) == (None, None)


def test_what_an_early_stop_may_judge_counts(bench: Path) -> None:
    rule = 'early_stop = { data = "data", split = "test", every = 4, patience = 2, documents = 1000 }'
    plain, watched = (told(bench, with_keys(CONTRASTIVE, steps=10) + more)[0] for more in ("", f"\n{rule}"))
    assert watched.tokens - plain.tokens == 3 * (120 * 5 + toy.DOCUMENTS * 7)


def test_nothing_is_written_and_the_table_is_shown(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, with_keys(CONTRASTIVE, steps=10), SCORED, SCORE)
    before = sorted(bench.rglob("*"))
    words = [str(path), "--out", str(tmp_path / "run"), "--dry-run"]
    shown = CliRunner().invoke(program(), words, catch_exceptions=False).stdout
    assert "contrastive" in shown
    assert "3,840" in shown
    assert "GiB" in shown
    assert "in all, on this machine" in shown
    assert sorted(bench.rglob("*")) == before
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_would_be_refused_is_refused(bench: Path) -> None:
    with pytest.raises(WrongUse, match="a batch of 4000 needs as many examples"):
        told(bench, with_keys(CONTRASTIVE, batch_size=4000))
    with pytest.raises(WrongUse, match="cannot keep the layers"):
        told(bench, with_keys(DISTIL, layers=[9]))


def test_weights_are_counted_and_what_layers_keep_grows_with_them(bench: Path) -> None:
    tower = Tower.load(bench / "tower")
    texts = read_pairs(PairsTable(path=bench / "data")).documents
    measured = gauge(tower, "document", texts)
    weights = sum(parameter.numel() for parameter in tower.parameters())
    embeddings = sum(m.weight.numel() for m in tower.modules() if type(m).__name__ == "Embedding")
    how = {"steps": 1, "learning_rate": 1.0}
    assert measured.weights_bytes(None) == 4 * weights
    assert measured.weights_bytes(Training(**how)) == 16 * weights  # type: ignore[arg-type]
    frozen = Training(**how, freeze_embeddings=True)  # type: ignore[arg-type]
    assert measured.weights_bytes(frozen) == 4 * weights + 12 * (weights - embeddings)
    adapted = Training(**how, lora={"rank": 2, "alpha": 1})  # type: ignore[arg-type]
    assert 4 * weights < measured.weights_bytes(adapted) < 16 * weights
    assert measured.kept > 3 * 32 * 4  # each layer keeps more than what goes in
    anew = Training(**how, gradient_checkpointing=True)  # type: ignore[arg-type]
    assert measured.kept_bytes(anew) == 3 * 32 * 4
    cut = measured.with_layers(1)
    assert cut.kept == pytest.approx(measured.kept / 3)
    assert cut.seconds_trained == pytest.approx(measured.seconds_trained / 3)
