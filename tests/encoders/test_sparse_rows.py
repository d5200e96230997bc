"""Sparse rows against a loop over a dense matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import NotFinite
from bartizan_encoders.sparse_rows import sparse_rows


@given(rows=st.integers(0, 4), seed=st.integers(0, 99), top_k=st.none() | st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_rows_are_what_is_not_zero_and_of_many_the_heaviest(rows: int, seed: int, top_k: int | None) -> None:
    values = torch.randint(0, 4, (rows, 12), generator=torch.Generator().manual_seed(seed)).float() / 2
    found = sparse_rows(values, top_k=top_k)
    assert len(found) == rows
    for row, vector in zip(values.numpy(), found, strict=True):
        active = sorted(np.flatnonzero(row), key=lambda term: (-row[term], term))[:top_k]
        assert vector.indices.tolist() == sorted(active)
        np.testing.assert_array_equal(vector.weights, row[sorted(active)])
        assert (vector.indices.dtype, vector.weights.dtype) == (np.int32, np.float32)


def test_a_text_without_terms_is_an_empty_vector() -> None:
    first, second = sparse_rows(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    assert len(first.indices) == 0
    assert second.indices.tolist() == [1]


@pytest.mark.parametrize("top_k", [None, 1])
def test_what_is_broken_is_refused_and_never_cut_off(top_k: int | None) -> None:
    with pytest.raises(NotFinite):
        sparse_rows(torch.tensor([[1.0, float("nan")]]), top_k=top_k)
    with pytest.raises(WrongUse, match="above zero"):
        sparse_rows(torch.tensor([[1.0, -1.0]]), top_k=top_k)


def test_no_terms_at_all_are_no_wish() -> None:
    with pytest.raises(WrongUse, match="top_k must be 1 or more, got 0"):
        sparse_rows(torch.ones(1, 2), top_k=0)
