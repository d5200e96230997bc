"""A power law through measured losses: L = floor + a · size^-α + b · data^-β, no coefficient below 0.

For given exponents the best coefficients are those of a small least-squares problem; the exponents are searched on a
grid that is drawn closer around the best one. With few points that is safer than a descent, which may end anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse

_LEAST, _MOST = 0.02, 3.0
_POINTS, _ROUNDS = 25, 4

Column = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """The law, and how far each measured loss is from it."""

    floor: float
    """What neither more size nor more data takes away."""
    size: float
    """a, with sizes counted in the geometric mean of all."""
    size_exponent: float | None
    """α; None: all sizes were equal."""
    data: float
    """b, with amounts of data counted in the geometric mean of all."""
    data_exponent: float | None
    """β; None: all amounts of data were equal."""
    size_unit: float
    data_unit: float
    residuals: tuple[float, ...]
    """Measured minus predicted."""
    explained: float
    """Share of the variance of the losses."""

    def at(self, size: float, data: float) -> float:
        """The loss that it predicts."""
        terms = (
            (self.size, size / self.size_unit, self.size_exponent),
            (self.data, data / self.data_unit, self.data_exponent),
        )
        return self.floor + sum(
            float(factor * amount**-exponent) for factor, amount, exponent in terms if exponent is not None
        )

    def __str__(self) -> str:
        parts = [f"{self.floor:.3f}"]
        for name, factor, unit, exponent in (
            ("size", self.size, self.size_unit, self.size_exponent),
            ("data", self.data, self.data_unit, self.data_exponent),
        ):
            if exponent is not None:
                parts.append(f"{factor:.3f} · ({name} / {unit:,.0f})^−{exponent:.2f}")
        return "loss = " + " + ".join(parts)


def fit(sizes: Sequence[float], amounts: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """The law that is nearest to the losses."""
    measured = np.asarray(losses, dtype=np.float64)
    axes = [np.asarray(values, dtype=np.float64) for values in (sizes, amounts)]
    vary = [len(set(axis.tolist())) > 1 for axis in axes]
    if not any(vary) or len(measured) < 1 + 2 * sum(vary):
        raise WrongUse(
            f"{len(measured)} runs are too few for a law: it takes three sizes or three shares, or two of the one and "
            "three of the other"
        )
    units = [float(np.exp(np.log(axis).mean())) for axis in axes]
    scaled = [axis / unit for axis, unit in zip(axes, units, strict=True)]
    ranges = [(_LEAST, _MOST) if varies else None for varies in vary]
    best: tuple[float, tuple[float | None, ...], Column] | None = None
    for _ in range(_ROUNDS):
        for exponents in product(*(_grid(bounds) for bounds in ranges)):
            error, coefficients = _least_squares(_columns(scaled, exponents), measured)
            if best is None or error < best[0]:
                best = error, exponents, coefficients
        assert best is not None
        ranges = [_closer(bounds, exponent) for bounds, exponent in zip(ranges, best[1], strict=True)]
    assert best is not None
    _, exponents, coefficients = best
    residuals = measured - _columns(scaled, exponents) @ coefficients
    floor, *factors = coefficients.tolist()
    of_axis = iter(factors)
    size, data = (next(of_axis) if varies else 0.0 for varies in vary)
    spread = float(((measured - measured.mean()) ** 2).sum())
    return PowerLaw(
        floor=floor,
        size=size,
        size_exponent=exponents[0],
        data=data,
        data_exponent=exponents[1],
        size_unit=units[0],
        data_unit=units[1],
        residuals=tuple(residuals.tolist()),
        explained=1 - float((residuals**2).sum()) / spread if spread else 1.0,
    )


def _grid(bounds: tuple[float, float] | None) -> Sequence[float | None]:
    return [None] if bounds is None else np.geomspace(*bounds, _POINTS).tolist()


def _closer(bounds: tuple[float, float] | None, best: float | None) -> tuple[float, float] | None:
    """The grid's neighbours of the best exponent."""
    if bounds is None or best is None:
        return None
    step = (bounds[1] / bounds[0]) ** (1 / (_POINTS - 1))
    return max(_LEAST, best / step), min(_MOST, best * step)


def _columns(scaled: Sequence[Column], exponents: Sequence[float | None]) -> Column:
    columns = [axis**-exponent for axis, exponent in zip(scaled, exponents, strict=True) if exponent is not None]
    return np.stack([np.ones(len(scaled[0])), *columns], axis=1)


def _least_squares(columns: Column, measured: Column) -> tuple[float, Column]:
    """Coefficients of which none is negative: the best of those where some are 0 and the rest is free."""
    best: tuple[float, Column] = float((measured**2).sum()), np.zeros(columns.shape[1])
    for free in _subsets(columns.shape[1]):
        found, *_ = np.linalg.lstsq(columns[:, free], measured, rcond=None)
        error = float(((measured - columns[:, free] @ found) ** 2).sum())
        if (found >= 0).all() and error < best[0]:
            coefficients = np.zeros(columns.shape[1])
            coefficients[list(free)] = found
            best = error, coefficients
    return best


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, count + 1):
        yield from combinations(range(count), size)
