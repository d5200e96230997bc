"""Weights shared out over two processes: the training of one, and a killed run goes on with the same bits."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from accelerate import Accelerator
from torch.distributed.checkpoint import FileSystemReader

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.weights import read_weights
from bartizan_training import sharding
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from tests.training import toy, toy_sparse
from tests.training.toy import with_keys

SPLADE = with_keys(toy_sparse.SPLADE, steps=4, log_every=1, checkpoint_every=2, batch_size=16, learning_rate=1e-3)
LORA = "\nlora = { rank = 4, alpha = 8.0 }\ngradient_checkpointing = true"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    toy_sparse.tower(folder / "tower")
    toy.collection(folder / "data", queries=64)
    return folder


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.packaging
def test_two_processes_that_share_the_weights_and_are_killed_train_what_one_trains(bench: Path) -> None:
    cached = with_keys(SPLADE, name="cached", steps=2, grad_cache=3, document="start.document", query="start.query")
    path = toy.recipe(bench, SPLADE + LORA, cached)
    one, two = bench / "one", bench / "two"
    train(Recipe.load(path), one)
    parts = toy.two_processes(path, two, shard=True)
    kept = two / "steps/1-splade/checkpoints/step-00000002"
    while not kept.exists():
        assert all(part.is_alive() for part in parts)
        time.sleep(0.001)
    for part in parts:
        os.kill(part.pid, signal.SIGKILL)
        part.join()
    names = FileSystemReader(kept).read_metadata().state_dict_metadata if kept.exists() else ["model.lora_A"]
    weights = [name for name in names if name.startswith(("model.", "optimizer.state."))]
    assert weights
    assert all("lora_" in name for name in weights)
    toy.train_in_two_processes(path, two, shard=True)
    assert len(history(two)) == 6
    for ours, theirs in zip(history(one), history(two), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)
    for name in ("splade", "cached"):
        mine, its = (read_weights(toy.towers_of(run, name) / "query") for run in (one, two))
        assert mine.keys() == its.keys()
        # AdamW divides by the gradient's size, so that rounding in tiny gradients shows up at the scale of the rate.
        assert max((mine[key] - its[key]).abs().max().item() for key in mine) < 5e-4


def test_one_process_has_nobody_to_share_with() -> None:
    with pytest.raises(WrongUse, match=r"there is one process, so that nothing can be shared out: start several with"):
        sharding.wanted(Accelerator(), shard=True)
