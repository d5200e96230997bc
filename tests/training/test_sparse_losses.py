"""The losses of sparse towers against float64 numpy, and the figures that show a collapse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bartizan_training import collapse
from bartizan_training.sparse_losses import flops, next_token_losses, ramp


@given(texts=st.integers(1, 6), terms=st.integers(1, 9), seed=st.integers(0, 99))
def test_flops_is_its_formula(texts: int, terms: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(texts, terms))
    expected = sum((sum(abs(weights[i, j]) for i in range(texts)) / texts) ** 2 for j in range(terms))
    assert flops(torch.from_numpy(weights)).item() == pytest.approx(expected, rel=1e-12)


def test_the_ramp_is_quadratic_and_capped() -> None:
    shares = [ramp(step, 10) for step in range(30)]
    assert shares[:10] == pytest.approx([((step + 1) / 10) ** 2 for step in range(10)])
    assert shares[9:] == [1.0] * 21
    assert ramp(0, 0) == 1.0


@given(tokens=st.integers(1, 6), terms=st.integers(2, 9), seed=st.integers(0, 99))
def test_both_next_token_losses_are_their_formulas(tokens: int, terms: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, following = random.normal(size=(tokens, terms)) * 4, random.integers(0, terms, tokens)
    kept = np.log1p(np.maximum(logits, 0.0))
    expected = [
        sum(np.log(np.exp(row).sum()) - row[own] for row, own in zip(values, following, strict=True))
        for values in (logits, kept)
    ]
    found = next_token_losses(torch.from_numpy(logits), torch.from_numpy(following))
    np.testing.assert_allclose([value.item() for value in found], expected, rtol=1e-12, atol=1e-13)


@given(texts=st.integers(2, 6), terms=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_figures_are_their_definitions(texts: int, terms: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = np.maximum(random.normal(size=(texts, terms)), 0.0)
    lengths = np.linalg.norm(weights, axis=1)
    unit = weights / np.where(lengths > 0, lengths, 1.0)[:, None]
    cosines = [unit[i] @ unit[j] for i in range(texts) for j in range(texts) if i != j]
    found = {key: value.item() for key, value in collapse.figures(torch.from_numpy(weights), "query").items()}
    assert found["query_active_terms"] == pytest.approx((weights > 0).sum() / texts)
    assert found["query_zero_share"] == pytest.approx((lengths == 0).mean())
    assert found["query_cosine"] == pytest.approx(np.mean(cosines), abs=1e-9)


def test_a_healthy_batch_raises_no_alarm() -> None:
    found = collapse.figures(torch.eye(16) + 0.01, "document")
    assert collapse.alarms({key: value.item() for key, value in found.items()}) == {}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (torch.cat([torch.eye(16)[:15], torch.zeros(1, 16)]), ["6.2% of the query vectors are all zero"]),
        (torch.ones(16, 16) + torch.eye(16), ["query vectors are all alike (mean cosine 0.95)"]),
        (
            torch.eye(16) + 3 * torch.eye(16)[0] * (torch.arange(16) < 12)[:, None],
            ["75% of the query vectors have one"],
        ),
    ],
    ids=["zero", "alike", "one term"],
)
def test_each_collapse_raises_its_alarm(weights: torch.Tensor, said: list[str]) -> None:
    found = collapse.alarms({key: value.item() for key, value in collapse.figures(weights, "query").items()})
    for start in said:
        assert any(alarm.startswith(start) for alarm in found.values()), found
