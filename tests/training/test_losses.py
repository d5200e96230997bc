"""Losses against a slow float64 numpy oracle, and what must hold of them whatever the numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bartizan_training.losses import alignment, info_nce, token_gap
from bartizan_training.settings import InfoNce
from bartizan_training.stages.contrast import contrast

B, N, D = 5, 12, 7


def vectors(*shape: int, seed: int, unit: bool = True) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(made, dim=-1) if unit else made


def info_nce_oracle(q: np.ndarray, d: np.ndarray, temperature: float, drop: np.ndarray, both: bool = False) -> float:
    """−log of the own document's share, one query at a time; `drop[i, j]` takes document j out of query i's sum."""
    loss = 0.0
    for i in range(len(q)):
        kept = [j for j in range(len(d)) if j == i or not drop[i, j]]
        shares = {j: np.exp(np.dot(q[i], d[j]) / temperature) for j in kept}
        loss -= np.log(shares[i] / sum(shares.values())) / len(q)
    if both:
        for j in range(len(q)):
            kept = [i for i in range(len(q)) if i == j or not drop[i, j]]
            shares = {i: np.exp(np.dot(q[i], d[j]) / temperature) for i in kept}
            loss -= np.log(shares[j] / sum(shares.values())) / len(q)
    return float(loss)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_info_nce_equals_the_oracle(temperature: float, both: bool) -> None:
    q, d = vectors(B, D, seed=1), vectors(N, D, seed=2)
    known = torch.rand(B, N, generator=torch.Generator().manual_seed(3)) < 0.3
    loss = info_nce(q, d, temperature=temperature, known_BN=known, bidirectional=both)
    expected = info_nce_oracle(q.numpy(), d.numpy(), temperature, known.numpy(), both)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_matryoshka_adds_the_loss_of_the_first_components_normalised_anew() -> None:
    q, d = vectors(B, D, seed=1), vectors(N, D, seed=2)
    known = torch.rand(B, N, generator=torch.Generator().manual_seed(3)) < 0.3
    table = InfoNce(temperature=0.1, matryoshka=(2, 5), matryoshka_weights=(0.5, 2.0))
    expected = 0.0
    for size, weight in ((2, 0.5), (5, 2.0), (D, 1.0)):
        short = [v.numpy()[:, :size] / np.linalg.norm(v.numpy()[:, :size], axis=1, keepdims=True) for v in (q, d)]
        expected += weight * info_nce_oracle(short[0], short[1], 0.1, known.numpy())
    assert contrast(q, d, known, table).item() == pytest.approx(expected, rel=1e-12)
    assert InfoNce(matryoshka=(2, 5)).sizes == {2: 1.0, 5: 1.0}
    with pytest.raises(ValueError, match=r"matryoshka_weights has 1 weights for 2 sizes in matryoshka: give one for"):
        InfoNce(matryoshka=(2, 5), matryoshka_weights=(1.0,))


def test_a_negative_above_the_margin_is_dropped() -> None:
    q, d = vectors(B, D, seed=1), vectors(N, D, seed=2)
    scores = (q @ d.T).numpy()
    drop = scores > scores.diagonal()[:, None] + 0.1
    assert drop.any()
    loss = info_nce(q, d, temperature=0.05, margin=0.1)
    assert loss.item() == pytest.approx(info_nce_oracle(q.numpy(), d.numpy(), 0.05, drop), rel=1e-12)


def test_a_dropped_document_gets_no_gradient_and_the_own_document_is_never_dropped() -> None:
    q, d = vectors(B, D, seed=1), vectors(N, D, seed=2).requires_grad_()
    known = torch.zeros(B, N, dtype=torch.bool)
    known[:, N - 1] = True
    known.fill_diagonal_(True)
    info_nce(q, d, temperature=0.05, known_BN=known).backward()
    assert d.grad is not None
    assert d.grad[N - 1].abs().sum() == 0
    assert (d.grad[:B].abs().sum(dim=1) > 0).all()


@given(batch=st.integers(2, 64), hard=st.integers(0, 3))
def test_info_nce_of_unrelated_vectors_is_the_log_of_the_choices(batch: int, hard: int) -> None:
    q, d = vectors(batch, 16, seed=batch), vectors(batch * (1 + hard), 16, seed=hard + 100)
    loss = info_nce(q, d, temperature=1e6, bidirectional=False)
    assert loss.item() == pytest.approx(np.log(len(d)), abs=1e-4)


def alignment_oracle(s: np.ndarray, t: np.ndarray, w_cos: float, w_mse: float, on: str, reduction: str) -> float:
    losses = []
    for a, b in zip(s, t, strict=True):
        unit_a, unit_b = a / np.sqrt((a**2).sum()), b / np.sqrt((b**2).sum())
        gap = (a - b if on == "raw" else unit_a - unit_b) ** 2
        losses.append(w_cos * (1 - unit_a @ unit_b) + w_mse * (gap.sum() if reduction == "sum" else gap.mean()))
    return float(np.mean(losses))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("on", ["raw", "normalised"])
@pytest.mark.parametrize(("w_cos", "w_mse"), [(1.0, 0.0), (0.0, 1.0), (0.7, 0.3)])
def test_alignment_equals_the_oracle(w_cos: float, w_mse: float, on: str, reduction: str) -> None:
    s, t = vectors(B, D, seed=1, unit=False), vectors(B, D, seed=2, unit=False)
    loss = alignment(s, t, w_cos=w_cos, w_mse=w_mse, mse_on=on, mse_reduction=reduction)  # type: ignore[arg-type]
    expected = alignment_oracle(s.numpy(), t.numpy(), w_cos, w_mse, on, reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_between_unit_vectors_the_summed_square_is_twice_one_minus_cosine(seed: int, scale: float) -> None:
    s, t = vectors(B, D, seed=seed, unit=False) * scale, vectors(B, D, seed=seed + 1, unit=False)
    square = alignment(s, t, w_cos=0, w_mse=1, mse_on="normalised", mse_reduction="sum")
    cosine = alignment(s, t, w_cos=1, w_mse=0, mse_on="normalised", mse_reduction="sum")
    assert square.item() == pytest.approx(2 * cosine.item(), rel=1e-9)


def test_the_token_gap_equals_the_oracle_and_padding_never_counts() -> None:
    lengths = [4, 1, 3]
    s, t = vectors(3, 4, D, seed=1, unit=False), vectors(3, 4, D, seed=2, unit=False)
    mask = torch.tensor([[int(place < length) for place in range(4)] for length in lengths])
    expected = []
    for a, b, length in zip(s.numpy(), t.numpy(), lengths, strict=True):
        cosines = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a[:length], b[:length], strict=True)]
        expected.append(1 - np.mean(cosines))
    np.testing.assert_allclose(token_gap(s, t, mask).numpy(), expected, rtol=1e-12)


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    t = vectors(B, D, seed=1, unit=False)
    s = t.clone().requires_grad_()
    loss = alignment(s, t, w_cos=1, w_mse=1, mse_on="raw", mse_reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert s.grad is not None
    assert s.grad.abs().max() < 1e-12
