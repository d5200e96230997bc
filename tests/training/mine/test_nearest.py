"""Search in blocks against sorting everything."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_training.mine.nearest import nearest


@given(documents=st.integers(1, 40), k=st.integers(1, 50), block=st.integers(1, 40), seed=st.integers(0, 99))
def test_blocks_give_what_sorting_everything_gives(documents: int, k: int, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    q, d = (random.integers(-3, 4, size=(rows, 5)).astype(np.float32) for rows in (3, documents))
    found, scores = nearest(q, d, k, block=block)
    every = q @ d.T  # whole numbers: exact in any order of sums
    expected = np.sort(every, axis=1)[:, ::-1][:, :k]
    assert np.array_equal(scores, expected)
    assert np.array_equal(np.take_along_axis(every, found, axis=1), scores)
    assert all(len(set(row)) == min(k, documents) for row in found.tolist())


def test_without_faiss_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    q, d = (random.normal(size=(rows, 8)).astype(np.float32) for rows in (5, 60))
    with_it = nearest(q, d, 7, block=16)
    monkeypatch.setitem(sys.modules, "faiss", None)
    without = nearest(q, d, 7, block=16)
    assert np.array_equal(with_it[0], without[0])
    np.testing.assert_allclose(with_it[1], without[1], rtol=1e-5)
