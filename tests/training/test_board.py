"""TensorBoard gets the figures of metrics.jsonl where it is installed, and is not missed where it is not."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from bartizan_training import board
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys

STEP = with_keys(CONTRASTIVE, steps=4, log_every=2)


class Writer:
    """As torch's, but for the files."""

    made: ClassVar[list["Writer"]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = Path(folder), purge_step
        self.scalars: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass


def test_each_figure_is_shown_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(board, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(Writer, "made", [])
    bench = toy.bench(tmp_path)
    train(Recipe.load(toy.recipe(bench, STEP)), bench / "run")
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step) == (bench / "run/tensorboard/1-contrastive", 1)
    lines = [json.loads(line) for line in (bench / "run/metrics.jsonl").read_text().splitlines()]
    plain = {"stage", "kind", "step"}
    expected = [(name, line[name], line["step"]) for line in lines for name in line if name not in plain]
    assert writer.scalars == expected
    assert {name for name, *_ in expected} >= {"loss", "learning_rate", "gradient_norm"}


def test_without_the_package_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    bench = toy.bench(tmp_path)
    train(Recipe.load(toy.recipe(bench, STEP)), bench / "run")
    assert not (bench / "run/tensorboard").exists()
