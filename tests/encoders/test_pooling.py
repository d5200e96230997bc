"""Poolings against loops in numpy; whatever stands in padded places never contributes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_encoders.pooling import POOLINGS, Pooling

ORACLES: dict[Pooling, Callable[[np.ndarray], np.ndarray]] = {
    "cls": lambda tokens: tokens[0],
    "mean": lambda tokens: tokens.sum(axis=0) / len(tokens),
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
    "sum": lambda tokens: tokens.sum(axis=0),
}


@pytest.mark.parametrize("name", sorted(POOLINGS))
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_each_pooling_is_its_definition(name: Pooling, lengths: list[int], seed: int) -> None:
    hidden = torch.randn(len(lengths), 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    pooled = POOLINGS[name](hidden, mask).numpy()
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(pooled[row], ORACLES[name](hidden[row, :length].numpy()), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
def test_padding_never_contributes(name: Pooling, garbage: float) -> None:
    hidden = torch.randn(2, 6, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    spoilt = hidden.clone()
    spoilt[0, 3:] = garbage
    assert torch.equal(POOLINGS[name](hidden, mask), POOLINGS[name](spoilt, mask))


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_gradients_reach_the_tokens_and_never_the_padding(name: Pooling) -> None:
    hidden = torch.randn(1, 5, 3, requires_grad=True)
    POOLINGS[name](hidden, torch.tensor([[1, 1, 1, 0, 0]])).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0, :3].abs().sum() > 0
    assert hidden.grad[0, 3:].abs().sum() == 0
