"""The optimisers that a recipe may name, against their published form in float64."""

import numpy as np
import pytest
import torch

from bartizan_training.loop import _optimizer
from bartizan_training.settings import Training


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_adafactor_steps_as_published() -> None:
    """Shazeer and Stern 2018: a factored second moment with decay 1 − t^−.8, updates cut at 1, steps relative to the
    weight's size."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3).double()
    table = Training(steps=1, learning_rate=0.01, weight_decay=0.0, optimizer="adafactor")
    optimizer = _optimizer(layer, table)  # type: ignore[arg-type]
    weight, bias = (parameter.detach().numpy().copy() for parameter in (layer.weight, layer.bias))
    row, column, square = np.zeros(3), np.zeros(5), np.zeros(3)
    draw = np.random.default_rng(0)
    for step in range(1, 6):
        gradients = draw.normal(size=(3, 5)), draw.normal(size=3)
        layer.weight.grad, layer.bias.grad = map(torch.from_numpy, gradients)
        optimizer.step()
        decay = 1 - step**-0.8
        row = decay * row + (1 - decay) * (gradients[0] ** 2).mean(axis=1)
        column = decay * column + (1 - decay) * (gradients[0] ** 2).mean(axis=0)
        square = decay * square + (1 - decay) * gradients[1] ** 2
        updates = gradients[0] / np.sqrt(np.outer(row, column) / row.mean()), gradients[1] / np.sqrt(square)
        for value, update in zip((weight, bias), updates, strict=True):
            value -= 0.01 * max(1e-3, rms(value)) * update / max(1.0, rms(update))
    assert layer.weight.detach().numpy() == pytest.approx(weight, rel=1e-9)
    assert layer.bias.detach().numpy() == pytest.approx(bias, rel=1e-9)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_only_matrices_decay(name: str) -> None:
    layer = torch.nn.Linear(5, 3)
    table = Training.model_validate({"steps": 1, "learning_rate": 0.01, "weight_decay": 0.5, "optimizer": name})
    optimizer = _optimizer(layer, table)  # type: ignore[arg-type]
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [(0.5, 1), (0.0, 1)]
