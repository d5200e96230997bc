"""The fitted law is the one that the losses came from; its plot shows every run."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.studies.plot import Line, plot
from bartizan_training.studies.power_law import fit

SIZES, AMOUNTS = (1e6, 4e6, 16e6, 64e6), (500, 2000, 8000)


def grid() -> tuple[list[float], list[float]]:
    return [size for size in SIZES for _ in AMOUNTS], [float(amount) for _ in SIZES for amount in AMOUNTS]


def test_a_law_without_noise_is_found_again() -> None:
    sizes, amounts = grid()
    losses = [0.9 + 3.0 * (n / 1e6) ** -0.35 + 2.0 * (d / 500) ** -0.6 for n, d in zip(sizes, amounts, strict=True)]
    law = fit(sizes, amounts, losses)
    assert law.size_exponent == pytest.approx(0.35, rel=0.02)
    assert law.data_exponent == pytest.approx(0.6, rel=0.02)
    assert law.floor == pytest.approx(0.9, abs=0.03)
    assert law.explained > 0.99999
    assert law.at(32e6, 4000) == pytest.approx(0.9 + 3 * 32**-0.35 + 2 * 8**-0.6, abs=0.005)
    assert "loss = " in str(law)


def test_residuals_are_what_the_law_leaves() -> None:
    sizes, amounts = grid()
    noise = np.random.default_rng(0).normal(0, 0.02, len(sizes))
    losses = [1 + (n / 1e6) ** -0.3 + (d / 500) ** -0.5 + e for n, d, e in zip(sizes, amounts, noise, strict=True)]
    law = fit(sizes, amounts, losses)
    expected = [loss - law.at(n, d) for n, d, loss in zip(sizes, amounts, losses, strict=True)]
    assert law.residuals == pytest.approx(expected, abs=1e-9)
    assert math.sqrt(np.mean(np.square(law.residuals))) < 0.025
    spread = np.var(losses) * len(losses)
    assert law.explained == pytest.approx(1 - sum(r * r for r in law.residuals) / spread)


def test_no_descent_finds_a_better_law_than_the_grid() -> None:
    """The oracle: many random laws around it."""
    sizes, amounts = grid()
    draw = np.random.default_rng(1)
    losses = (1 + np.array(sizes) ** -0.2 * 20 + np.array(amounts) ** -0.4 * 10 + draw.normal(0, 0.05, 12)).tolist()
    law = fit(sizes, amounts, losses)
    ours = sum(r * r for r in law.residuals)
    for _ in range(2000):
        alpha, beta = draw.uniform(0.02, 3, 2)
        n, d = np.array(sizes) / law.size_unit, np.array(amounts) / law.data_unit
        columns = np.stack([np.ones(12), n**-alpha, d**-beta], axis=1)
        coefficients = np.maximum(np.linalg.lstsq(columns, np.array(losses), rcond=None)[0], 0)
        assert ((np.array(losses) - columns @ coefficients) ** 2).sum() >= ours - 1e-6


def test_what_does_not_vary_has_no_exponent() -> None:
    law = fit([1e6] * 3, [100, 1000, 10000], [3.0, 2.0, 1.5])
    assert law.size_exponent is None
    assert law.residuals == pytest.approx([0, 0, 0], abs=1e-3)
    with pytest.raises(WrongUse, match="too few for a law"):
        fit([1e6, 2e6], [10, 10], [1.0, 2.0])


def test_losses_that_rise_with_size_give_no_negative_coefficient() -> None:
    law = fit([1, 2, 4], [10, 10, 10], [1.0, 1.5, 2.0])
    assert (law.size, law.floor) == (0, pytest.approx(1.5))


def test_the_plot_is_a_picture_of_every_run() -> None:
    lines = [
        Line(label="1 < 2", points=[(10, 3.0), (100, 2.0)], dashed=[(10, 2.9), (100, 2.1)]),
        Line(label="b", points=[(50, 1.0)]),
    ]
    root = ElementTree.fromstring(plot(lines, x="pairs", y="loss", title="a & b"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 3 + 2
    assert len(root.findall(f"{space}polyline")) == 1
    assert {"1 < 2", "a & b", "pairs"} <= {text.text for text in root.iter(f"{space}text")}
    (first, second, *_) = root.findall(f"{space}circle")
    assert float(first.attrib["cy"]) < float(second.attrib["cy"])  # a greater loss is further up
