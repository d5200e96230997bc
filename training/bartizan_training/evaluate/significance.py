"""Whether one run is better than another: a paired randomisation test and a bootstrap interval over the same queries.

Both look at the differences query by query. The test asks how often a mean difference at least as large would come
about if it were decided by coin for each query which run is which. The interval says which mean differences other
queries of the same kind would give.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse

PERMUTATIONS = 20_000
RESAMPLES = 10_000
CONFIDENCE = 0.95
_EXACT_UP_TO = 14
"""Up to so many queries that differ, all assignments are counted (2¹⁴ of them) instead of sampled."""
_SAME = 1e-12
"""Differences smaller than this are rounding."""
_BLOCK_VALUES = 1 << 22

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a run is ahead of a baseline in one measure."""

    mean: float
    low: float
    """Lower end of the confidence interval of the mean."""
    high: float
    p: float
    """Two-sided; small: the difference is hardly chance."""
    wins: int
    ties: int
    losses: int


def compare(run: Mapping[str, float], baseline: Mapping[str, float], *, seed: int = 0) -> Difference:
    """Compare two runs' values of one measure, query by query; the same seed gives the same answer."""
    if not run or run.keys() != baseline.keys():
        raise WrongUse(
            f"two runs can be compared over the same queries only; {len(run.keys() & baseline.keys())} are common "
            f"to this run's {len(run)} and the baseline's {len(baseline)}"
        )
    differences = np.array([run[query] - baseline[query] for query in sorted(run)])
    differences[np.abs(differences) < _SAME] = 0.0
    low, high = interval(differences, seed=seed)
    return Difference(
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=p_value(differences, seed=seed),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def p_value(differences: Values, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Two-sided paired randomisation test of the mean; queries without a difference take no part in it."""
    changed = differences[differences != 0]
    if not changed.size:
        return 1.0
    least = abs(changed.sum()) * (1 - 1e-9)
    if changed.size <= _EXACT_UP_TO:
        numbers = np.arange(2**changed.size)[:, None]
        signs = 1.0 - 2.0 * ((numbers >> np.arange(changed.size)) & 1)
        return float((np.abs(signs @ changed) >= least).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for count in _blocks(permutations, changed.size):
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=(count, changed.size), dtype=np.int8)
        extreme += int((np.abs(signs @ changed) >= least).sum())
    return (extreme + 1) / (permutations + 1)


def interval(
    differences: Values, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean."""
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[generator.integers(0, differences.size, size=(count, differences.size))].mean(axis=1)
            for count in _blocks(resamples, differences.size)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _blocks(rows: int, width: int) -> list[int]:
    """Sizes of blocks that together make `rows`, none holding many more than `_BLOCK_VALUES` values."""
    size = max(1, _BLOCK_VALUES // width)
    return [min(size, rows - start) for start in range(0, rows, size)]
