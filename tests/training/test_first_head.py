"""A student's first head is the least squares of its teacher's vectors, and training goes on from there."""

import json
from pathlib import Path

import numpy as np
import torch

from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.first_head import fitted
from tests.training import toy


def test_the_map_is_the_one_of_least_squares() -> None:
    random = np.random.default_rng(0)
    x, map_, shift = random.normal(size=(200, 7)) + 3, random.normal(size=(4, 7)), random.normal(size=4)
    y = x @ map_.T + shift + 0.01 * random.normal(size=(200, 4))
    weight, bias = (part.numpy() for part in fitted(torch.from_numpy(x), torch.from_numpy(y)))
    design = np.column_stack([x, np.ones(200)])
    oracle = np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.allclose(np.column_stack([weight, bias]), oracle.T, atol=0.03)
    assert np.abs(x @ weight.T + bias - y).mean() < 0.02


def test_a_column_that_never_moves_does_no_harm() -> None:
    x = np.column_stack([np.random.default_rng(0).normal(size=(50, 3)), np.full(50, 5.0)])
    weight, bias = fitted(torch.from_numpy(x), torch.from_numpy(x[:, :2] + 1))
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_a_student_of_another_size_begins_near_its_teacher(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path)
    toy.tower(bench / "student", layers=2, width=16, seed=5)
    distil = toy.with_keys(toy.DISTIL, layers=None, epochs=None, steps=1, learning_rate=1e-9, log_every=1)
    train(Recipe.load(toy.recipe(bench, f'{distil}\nstudent = "student"')), bench / "run")
    (line,) = (json.loads(line) for line in (bench / "run/metrics.jsonl").read_text().splitlines())
    assert line["loss"] < 0.5, "a random head is as far as 1"
