"""The paired test and the interval, against plain enumeration and against what is known of the samples."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_training.evaluate.significance import compare, interval, p_value

eighths = st.integers(-8, 8).map(lambda value: value / 8)
"""Sums of these are exact, so that the oracle may compare them with ==."""


def oracle(differences: list[float]) -> float:
    """The share of all assignments of signs whose sum is at least as far from zero."""
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(sign * value for sign, value in zip(row, differences, strict=True))) for row in signs]
    return sum(value >= abs(sum(differences)) for value in sums) / len(signs)


@given(st.lists(eighths, min_size=1, max_size=9))
def test_few_queries_are_tested_by_counting_every_assignment(differences: list[float]) -> None:
    assert p_value(np.array(differences)) == pytest.approx(oracle(differences))


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_many_queries_are_sampled_to_nearly_the_same_p(shift: float) -> None:
    """16 differences: sampled by the code, counted by the oracle; the tolerance is 4 standard errors."""
    differences = np.round(np.random.default_rng(4).normal(shift, 0.5, 16) * 8) / 8
    differences[differences == 0] = 0.125
    exact = oracle(differences.tolist())
    sampled = p_value(differences, permutations=20_000)
    assert abs(sampled - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000) + 1 / 20_000


def test_p_is_uniform_when_nothing_but_chance_is_at_work() -> None:
    """Of 400 comparisons of equals, about 5 % come out below .05 (20 expected, ± 4 standard deviations)."""
    generator = np.random.default_rng(5)
    false_alarms = sum(p_value(generator.normal(0, 1, 40), permutations=400, seed=run) <= 0.05 for run in range(400))
    assert 3 <= false_alarms <= 38


def test_the_interval_holds_the_true_mean_nearly_as_often_as_it_says() -> None:
    """100 skewed differences, as of nDCG: many zeros, some large. 95 % of 300 intervals, ± 4 standard deviations."""
    generator = np.random.default_rng(6)
    held = 0
    for run in range(300):
        sample = generator.choice([0.0, 0.0, 0.0, 1.0, -0.4], size=100)
        low, high = interval(sample, resamples=1_000, seed=run)
        held += low <= 0.12 <= high
    assert 270 <= held <= 299


def test_the_interval_of_a_wide_sample_is_that_of_the_normal_distribution() -> None:
    sample = np.random.default_rng(7).normal(0.02, 0.2, 2_000)
    low, high = interval(sample)
    half = 1.96 * sample.std(ddof=1) / math.sqrt(sample.size)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=half / 20)


def test_wins_ties_and_losses_are_counted_by_query() -> None:
    run = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.1 + 0.2}
    baseline = {"a": 0.0, "b": 0.5, "c": 0.5, "d": 0.3}
    found = compare(run, baseline)
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)
    assert found.mean == pytest.approx(0.125)
    assert found.p == 1.0
    assert found.low <= found.mean <= found.high


def test_a_run_compared_with_itself_differs_in_nothing() -> None:
    values = {str(query): query / 7 for query in range(50)}
    found = compare(values, values)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert (found.wins, found.ties, found.losses) == (0, 50, 0)


def test_exchanging_the_runs_turns_the_signs_and_keeps_p() -> None:
    generator = np.random.default_rng(8)
    one = {str(query): float(value) for query, value in enumerate(generator.random(60))}
    two = {str(query): float(value) for query, value in enumerate(generator.random(60))}
    there, back = compare(one, two), compare(two, one)
    assert back.mean == -there.mean
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p == there.p
    assert (back.wins, back.losses) == (there.losses, there.wins)


def test_the_same_seed_gives_the_same_answer_and_the_order_of_queries_none() -> None:
    generator = np.random.default_rng(9)
    one = {str(query): float(value) for query, value in enumerate(generator.random(60))}
    two = {str(query): float(value) for query, value in enumerate(generator.random(60))}
    assert compare(one, two, seed=3) == compare(dict(reversed(one.items())), two, seed=3)
    assert compare(one, two, seed=3) != compare(one, two, seed=4)


def test_a_large_and_steady_difference_is_significant_and_a_small_unsteady_one_is_not() -> None:
    generator = np.random.default_rng(10)
    baseline = {str(query): float(value) for query, value in enumerate(generator.random(200))}
    better = {query: value + 0.05 for query, value in baseline.items()}
    noise = {query: value + float(generator.normal(0, 0.3)) for query, value in baseline.items()}
    assert compare(better, baseline).p < 0.001
    assert compare(noise, baseline).p > 0.05


def test_runs_over_different_queries_are_refused() -> None:
    with pytest.raises(
        WrongUse, match=r"over the same queries only; 1 are common to this run's 2 and the baseline's 1"
    ):
        compare({"a": 1.0, "b": 1.0}, {"a": 0.0})
    with pytest.raises(WrongUse, match="over the same queries only"):
        compare({}, {})
