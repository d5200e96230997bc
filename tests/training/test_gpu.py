"""On a CUDA device: both kinds of training learn, and the arithmetic is the CPU's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.loop import train
from bartizan_training.prefetch import Prefetcher
from bartizan_training.recipe import Recipe
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("text", [CONTRASTIVE, DISTIL, REFINE], ids=["contrastive", "distil_query", "refine"])
def test_the_first_loss_and_gradient_are_those_of_the_cpu(bench: Path, text: str) -> None:
    stage = toy.stage(bench, text)
    figures = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        stage.to(device).zero_grad()
        loss = stage(stage.batch(0).to(device))
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in stage.parameters() if p.grad is not None]).norm()
        figures.append((loss.item(), norm.item()))
    # fp32 on both, sums in another order.
    assert figures[1] == pytest.approx(figures[0], rel=1e-3)


def test_batches_made_ahead_are_those_made_at_once(bench: Path) -> None:
    stage, device = toy.stage(bench, CONTRASTIVE), torch.device("cuda", 0)
    with Prefetcher(stage.batch, range(3, 12), device) as batches:
        for number, ahead in zip(range(3, 12), batches, strict=True):
            now = stage.batch(number)
            pairs = [(a, b) for x, y in zip(ahead.texts, now.texts, strict=True) for a, b in _tensors(x, y)]
            pairs += zip(ahead.beside, now.beside, strict=True)
            assert all(a.device.type == "cuda" and torch.equal(a.cpu(), b) for a, b in pairs)


def _tensors(one: Packed, other: Packed) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pieces = zip(one.pieces, other.pieces, strict=True)
    return [(one.back, other.back), *(pair for a, b in pieces for pair in zip(a, b, strict=True))]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_of_every_stage_falls(bench: Path, tmp_path: Path, precision: str) -> None:
    stages = [with_keys(text, precision=precision) for text in (CONTRASTIVE, DISTIL, REFINE)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    train(Recipe.load(toy.recipe(bench, *stages)), tmp_path / "run")
    assert torch.cuda.max_memory_allocated() > before
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for stage in (1, 2):
        losses = [record["loss"] for record in records if record["stage"] == stage]
        assert losses[-1] < 0.5 * losses[0]
    towers = tmp_path / "run/towers"
    assert toy.found_first(bench / "data", towers / "document", towers / "query") > 0.5


def test_a_tower_trained_on_the_gpu_gives_the_same_vectors_on_the_cpu(bench: Path, tmp_path: Path) -> None:
    train(Recipe.load(toy.recipe(bench, with_keys(CONTRASTIVE, steps=5))), tmp_path / "run")
    folder = tmp_path / "run/towers/query"
    on_gpu = TorchEncoder.open(folder).encode(["ask1 ask2", "ask3"], "query").values
    on_cpu = TorchEncoder(Tower.load(folder)).encode(["ask1 ask2", "ask3"], "query").values
    assert np.abs(on_gpu - on_cpu).max() < 1e-4


def test_a_run_resumed_on_the_gpu_goes_on_from_its_checkpoint(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, with_keys(CONTRASTIVE, steps=20, checkpoint_every=10, log_every=1))
    recipe = Recipe.load(path)
    train(recipe, tmp_path / "whole")
    records = (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    toy.train_and_kill(path, tmp_path / "cut", at=tmp_path / "cut/steps/1-contrastive/checkpoints/step-00000010")
    train(recipe, tmp_path / "cut", resume=True)
    again = (tmp_path / "cut/metrics.jsonl").read_text().splitlines()
    ours, theirs = ([json.loads(line)["loss"] for line in lines] for lines in (records, again))
    assert len(ours) == len(theirs) == 20
    assert theirs == pytest.approx(ours, rel=1e-2)
