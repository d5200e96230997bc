"""LoRA and layers computed anew: less is kept in memory and in checkpoints, and the towers that come out are plain."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import read_weights
from bartizan_training import adapters
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import Lora
from tests.training import toy, toy_sparse
from tests.training.toy import with_keys
from tests.training.toy_sparse import SPLADE

LORA = "\nlora = { rank = 4, alpha = 8.0 }"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_sparse.bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.packaging
def test_adapters_alone_are_trained_and_kept_in_checkpoints_and_merged_at_the_end(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, with_keys(SPLADE, steps=8, checkpoint_every=4) + LORA)
    kept = tmp_path / "run/steps/1-splade/checkpoints/step-00000004"
    toy.train_and_kill(path, tmp_path / "run", at=kept)
    checkpoint = load_file(kept / "model.safetensors") if (kept / "model.safetensors").exists() else {}
    train(Recipe.load(path), tmp_path / "run", resume=True)
    train(Recipe.load(path), tmp_path / "whole")
    whole, resumed = (read_weights(tmp_path / name / "towers/query") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert all("lora_" in name for name in checkpoint)
    before = read_weights(bench / "tower")
    assert whole.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], whole[name])}
    assert changed == {name for name in before if "_proj" in name}


def test_the_merged_tower_is_the_one_that_was_trained(bench: Path) -> None:
    stage = toy_sparse.stage(bench, SPLADE)
    plain = toy_sparse.stage(bench, SPLADE)
    batch = stage.batch(0)
    torch.manual_seed(0)
    adapters.adapt_with(stage, Lora(rank=2, alpha=4.0, targets=("q_proj", "down_proj")))
    trained = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    assert {name.split(".")[-4] for name in trained} == {"q_proj", "down_proj"}
    assert stage(batch).item() == pytest.approx(plain(batch).item(), rel=1e-6)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(std=0.3)
    expected = stage(batch).item()
    adapters.merge(stage)
    assert stage(batch).item() == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(plain(batch).item(), rel=1e-3)
    assert [name for name, _ in stage.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert all(parameter.requires_grad for parameter in stage.parameters())


def test_a_target_that_is_not_there_is_named(bench: Path) -> None:
    with pytest.raises(WrongUse, match=r"no linear layer of such a name; it has down_proj, gate_proj, k_proj"):
        adapters.adapt_with(toy_sparse.stage(bench, SPLADE), Lora(rank=2, alpha=4.0, targets=("query",)))


def test_layers_computed_anew_give_the_same_gradients(bench: Path) -> None:
    found = []
    for again in (False, True):
        stage = toy_sparse.stage(bench, SPLADE).eval()
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        tower = adapters.towers_in(stage)[0]
        tower.backbone.layers[0].mlp.register_forward_pre_hook(count)
        if again:
            adapters.compute_anew(stage)
        batch = stage.batch(0)
        stage(batch).backward()
        pieces = len(batch.texts[0].pieces)
        assert calls == (2 * pieces if again else pieces)
        found.append({name: parameter.grad for name, parameter in stage.named_parameters()})
        adapters.as_they_were(stage)
        assert "forward" not in tower.backbone.layers[0].__dict__
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.packaging
def test_what_is_frozen_is_left_out_of_checkpoints_and_not_missed(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, with_keys(SPLADE, steps=6, checkpoint_every=3, freeze_embeddings=True))
    kept = tmp_path / "run/steps/1-splade/checkpoints/step-00000003"
    toy.train_and_kill(path, tmp_path / "run", at=kept)
    train(Recipe.load(path), tmp_path / "run", resume=True)
    train(Recipe.load(path), tmp_path / "whole")
    towers = [Tower.load(tmp_path / name / "towers/query") for name in ("run", "whole")]
    assert towers[0].spec.tower_id == towers[1].spec.tower_id
    before = Tower.load(bench / "tower").backbone.get_input_embeddings().weight
    assert torch.equal(towers[0].backbone.get_input_embeddings().weight, before)
