"""The step `calibrate`: each term's usual height is taken off, by its definition, and the tower is one as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.data.collections import BeirData
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.calibrate import calibrate
from bartizan_training.studies.forms import open_form
from tests.training import toy, toy_sparse

CALIBRATE = """
kind = "calibrate"
quantile = 0.75
texts = [{ kind = "documents", path = "data" }]
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return toy_sparse.bench(tmp_path_factory.mktemp("bench"))


def heights(tower: Tower, text: str) -> np.ndarray:
    """The greatest logit of each term, the plain way."""
    ids = torch.tensor([list(tower.tokens.encode([text], "document")[0].ids)])
    with torch.no_grad():
        states = tower.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        logits: np.ndarray = tower.head(states)[0].double().numpy()
    return logits.max(axis=0)


def test_the_bias_is_the_quantile_of_each_terms_greatest_logit(bench: Path) -> None:
    texts = list(BeirData.read(bench / "data").corpus.values())[:40]
    tower = Tower.load(bench / "tower")
    usual = np.sort(np.maximum([heights(tower, text) for text in texts], 0), axis=0)[round(0.75 * 40) - 1]
    before = tower.head.bias
    calibrate(tower, texts, 0.75)
    assert before is None
    np.testing.assert_allclose(tower.head.bias.detach().numpy(), -usual, atol=1e-5)
    after = np.array([heights(tower, text) for text in texts])
    assert ((after > 1e-5).sum(axis=0) <= 10).all()


def test_calibrating_again_adds_to_the_bias_that_is_there(bench: Path) -> None:
    texts = list(BeirData.read(bench / "data").corpus.values())[:20]
    tower = Tower.load(bench / "tower")
    calibrate(tower, texts, 0.5)
    once = tower.head.bias.detach().clone()
    usual = np.sort(np.maximum([heights(tower, text) for text in texts], 0), axis=0)[round(0.75 * 20) - 1]
    calibrate(tower, texts, 0.75)
    np.testing.assert_allclose(tower.head.bias.detach().numpy(), once.numpy() - usual, atol=1e-5)


def test_a_run_calibrates_keeps_the_bias_and_trains_on(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, CALIBRATE, toy.with_keys(toy_sparse.SPLADE, steps=3))
    train(Recipe.load(path), tmp_path / "run")
    (made,) = (tmp_path / "run/artefacts/calibrate-towers").iterdir()
    tower, again = Tower.load(made / "document"), Tower.load(bench / "tower")
    texts = list(BeirData.read(bench / "data").corpus.values())
    calibrate(again, texts, 0.75)
    torch.testing.assert_close(tower.head.bias, again.head.bias)
    ended = Tower.load(tmp_path / "run/towers/query")
    assert ended.head.bias is not None
    assert not torch.equal(ended.head.bias, tower.head.bias)


def test_a_dense_tower_is_refused(bench: Path, tmp_path: Path) -> None:
    toy.tower(tmp_path / "dense")
    recipe = Recipe.load(toy.recipe(bench, CALIBRATE), tower=tmp_path / "dense")
    with pytest.raises(WrongUse, match=r"is dense \(mean\); only sparse ones with max"):
        train(recipe, tmp_path / "run")


def test_the_bias_is_in_the_export(bench: Path, tmp_path: Path) -> None:
    tower = Tower.load(bench / "tower")
    texts = list(BeirData.read(bench / "data").corpus.values())[:20]
    calibrate(tower, texts, 0.75)
    tower.save(tmp_path / "tower")
    encoder = open_form("fp32", tmp_path / "tower", tmp_path, threads=1).encoder
    exported, own = encoder.encode(texts, "document").values, TorchEncoder(tower).encode(texts, "document").values
    encoder.close()
    pairs = zip(own, exported, strict=True)
    apart = [np.abs(dense(ours, tower.spec.dim) - dense(theirs, tower.spec.dim)).max() for ours, theirs in pairs]
    assert max(apart) < 1e-5
    assert min(len(vector.indices) for vector in own) > 0


def dense(vector: SparseVector, size: int) -> np.ndarray:
    values = np.zeros(size)
    values[vector.indices] = vector.weights
    return values
