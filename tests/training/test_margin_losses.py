"""Margin losses against a double loop in float64, and what must hold of them whatever the numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bartizan_training.margin_losses import BatchScores, in_batch_margin_mse, margin_mse, rank_net


def matrix(size: int, seed: int, scale: float = 10.0) -> torch.Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def scores(size: int, seed: int) -> BatchScores:
    return BatchScores(positive_BB=matrix(size, seed), negative_BB=matrix(size, seed + 1))


def in_batch_oracle(student: BatchScores, teacher: BatchScores) -> float:
    """The loss as the authors' code computes it, one pair at a time."""
    s_positive, s_negative = student.positive_BB.numpy(), student.negative_BB.numpy()
    t_positive, t_negative = teacher.positive_BB.numpy(), teacher.negative_BB.numpy()
    size = len(s_positive)
    total = 0.0
    for ours, theirs in ((s_positive, t_positive), (s_negative, t_negative)):
        errors = []
        for i in range(size):
            for j in range(size):
                if i != j:
                    margin = s_positive[i, i] - ours[i, j]
                    taught = t_positive[i, i] - theirs[i, j]
                    errors.append((margin - taught) ** 2)
        assert len(errors) == size * (size - 1)
        total += np.mean(errors)
    return total / 2


@given(size=st.integers(2, 12), seed=st.integers(0, 1000))
def test_the_in_batch_loss_equals_a_double_loop(size: int, seed: int) -> None:
    student, teacher = scores(size, seed), scores(size, seed + 500)
    assert in_batch_margin_mse(student, teacher).item() == pytest.approx(in_batch_oracle(student, teacher), rel=1e-12)


@given(size=st.integers(1, 12), seed=st.integers(0, 1000))
def test_the_pairwise_loss_equals_a_loop(size: int, seed: int) -> None:
    student, teacher = scores(size, seed), scores(size, seed + 500)
    expected = np.mean(
        [
            ((student.positive_BB[i, i] - student.negative_BB[i, i]) - (better - worse)).item() ** 2
            for i, (better, worse) in enumerate(zip(teacher.own_positive_B, teacher.own_negative_B, strict=True))
        ]
    )
    margin = teacher.own_positive_B - teacher.own_negative_B
    found = margin_mse(student.own_positive_B, student.own_negative_B, margin)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@given(size=st.integers(2, 8), seed=st.integers(0, 1000))
def test_a_constant_added_to_a_querys_scores_changes_nothing(size: int, seed: int) -> None:
    student, teacher = scores(size, seed), scores(size, seed + 500)
    constant = matrix(size, seed + 900)[:, :1]
    shifted = BatchScores(positive_BB=teacher.positive_BB + constant, negative_BB=teacher.negative_BB + constant)
    before, after = in_batch_margin_mse(student, teacher), in_batch_margin_mse(student, shifted)
    assert after.item() == pytest.approx(before.item(), rel=1e-9)
    agreeing = BatchScores(positive_BB=student.positive_BB + constant, negative_BB=student.negative_BB + constant)
    assert in_batch_margin_mse(student, agreeing).item() == pytest.approx(0, abs=1e-20)
    margin = agreeing.own_positive_B - agreeing.own_negative_B
    assert margin_mse(student.own_positive_B, student.own_negative_B, margin).item() == pytest.approx(0, abs=1e-20)


def test_a_querys_own_negative_is_left_to_the_pairwise_loss() -> None:
    student, teacher = scores(6, 1), scores(6, 50)
    negative = student.negative_BB.clone().requires_grad_()
    loss = in_batch_margin_mse(BatchScores(positive_BB=student.positive_BB, negative_BB=negative), teacher)
    loss.backward()
    assert negative.grad is not None
    assert (negative.grad.diagonal() == 0).all()
    assert (negative.grad.fill_diagonal_(1) != 0).all()


def test_the_loss_does_not_grow_with_the_batch() -> None:
    """A mean, as the weight of .75 is made for; the printed 1 / 2|Q| would grow with it."""
    found = [in_batch_margin_mse(scores(size, 3), scores(size, 700)).item() for size in (16, 256)]
    assert found[0] == pytest.approx(found[1], rel=0.35)


def test_a_batch_of_one_query_has_nothing_to_compare() -> None:
    positive = torch.ones(1, 1, requires_grad=True)
    alone = BatchScores(positive_BB=positive, negative_BB=torch.ones(1, 1))
    loss = in_batch_margin_mse(alone, alone)
    loss.backward()
    assert loss.item() == 0
    assert positive.grad is not None
    assert positive.grad.item() == 0


def test_scores_are_dot_products_and_can_be_scaled() -> None:
    q, positive, negative = (torch.randn(3, 5, generator=torch.Generator().manual_seed(i)) for i in range(3))
    made = BatchScores.of(q, positive, negative).scaled(20.0)
    for i in range(3):
        for j in range(3):
            assert made.positive_BB[i, j].item() == pytest.approx(20 * float(q[i] @ positive[j]), rel=1e-5)
            assert made.negative_BB[i, j].item() == pytest.approx(20 * float(q[i] @ negative[j]), rel=1e-5)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=8))
def test_rank_net_is_the_cross_entropy_of_two(rows: list[tuple[float, float]]) -> None:
    both = torch.tensor(rows, dtype=torch.float64)
    expected = np.mean([np.logaddexp(0, worse - better) for better, worse in rows])
    assert rank_net(both[:, 0], both[:, 1]).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
