"""Exact search against the plainest arithmetic there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store import exact
from bartizan_connector.store.exact import sparse_scores, top_k
from bartizan_connector.testing.rows import sparse


def plain(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Every pair in float64, rounded once, sorted by (-score, position)."""
    scores = (queries.astype(np.float64) @ documents.T.astype(np.float64)).astype(np.float32)
    order = [sorted(range(len(documents)), key=lambda i: (-row[i], i))[:k] for row in scores]
    return order, [[float(row[i]) for i in chosen] for row, chosen in zip(scores, order, strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1),
    documents=st.integers(0, 60),
    queries=st.integers(0, 4),
    dim=st.integers(1, 40),
    k=st.integers(1, 70),
    whole=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_it_finds_what_sorting_every_pair_finds(
    seed: int, documents: int, queries: int, dim: int, k: int, whole: bool
) -> None:
    dice = np.random.default_rng(seed)
    reach, unit = (2, 1) if whole else (4096, 1024)  # twelve bits: float64 sums them exactly in any order
    asked, stored = (
        (dice.integers(-reach, reach + 1, (count, dim)) / unit).astype(np.float32) for count in (queries, documents)
    )
    stored[documents // 2 :] = stored[: documents - documents // 2]  # equal rows must tie wherever they stand
    positions, scores = top_k(asked, stored, k)
    wanted_positions, wanted_scores = plain(asked, stored, k)
    assert positions.shape == scores.shape == (queries, min(k, documents))
    assert positions.tolist() == wanted_positions
    assert scores.tolist() == wanted_scores


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(0)
    queries, documents = (dice.normal(size=(n, 16)).astype(np.float32) for n in (37, 500))
    whole = top_k(queries, documents, 9)
    monkeypatch.setattr(exact, "_BLOCK_SCORES", 1100)
    for one, other in zip(whole, top_k(queries, documents, 9), strict=True):
        assert one.tolist() == other.tolist()


def test_equal_documents_tie_wherever_a_matrix_product_puts_them() -> None:
    """A matrix product alone gives equal rows scores that differ in the last bit, by where they stand."""
    dice = np.random.default_rng(3)
    for dim, copies in ((383, 257), (5, 31), (100, 1003)):
        documents = np.repeat(dice.normal(size=(1, dim)).astype(np.float32), copies, axis=0)
        for asked in (1, 3, 8):
            queries = dice.normal(size=(asked, dim)).astype(np.float32)
            for k in (1, 7, copies // 2, copies):
                positions, scores = top_k(queries, documents, k)
                assert positions.tolist() == [list(range(k))] * asked
                assert (scores == scores[:, :1]).all()


@given(st.lists(st.dictionaries(st.integers(0, 19), st.integers(1, 5).map(float), max_size=6), min_size=1, max_size=8))
def test_sparse_scores_are_the_dense_inner_products(vectors: list[dict[int, float]]) -> None:
    dense = np.zeros((len(vectors), 20))
    for row, vector in zip(dense, vectors, strict=True):
        row[list(vector)] = list(vector.values())
    got = sparse_scores(sparse(vectors[0]), [sparse(vector) for vector in vectors], 20)
    assert got.tolist() == (dense @ dense[0]).tolist()


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(WrongUse, match="equal width"):
        top_k(np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32), 1)
    with pytest.raises(WrongUse, match="k = 0"):
        top_k(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), 0)


@pytest.mark.parametrize("scale", [1e-20, 1e-25, 1e-38, 1e-43])
def test_rows_whose_squares_are_nothing_in_float32_are_ranked_all_the_same(scale: float) -> None:
    dice = np.random.default_rng(1)
    alike = dice.standard_normal((20, 384)).repeat(50, axis=0) + 1e-6 * dice.standard_normal((1000, 384))
    documents = (scale * alike).astype(np.float32)
    queries = alike[::70].astype(np.float32)
    positions, scores = top_k(queries, documents, 10)
    wanted_positions, wanted_scores = plain(queries, documents, 10)
    assert positions.tolist() == wanted_positions
    assert scores.tolist() == wanted_scores


def far(dice: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Numbers from one end of float32 to the other: each of its own scale, or each row, or only a few of all."""
    values, ends = dice.standard_normal((count, dim)), (-38, 38)
    scale: np.ndarray
    match dice.integers(4):
        case 0:
            scale = 10.0 ** dice.uniform(*ends, (count, dim))
        case 1:
            scale = 10.0 ** dice.uniform(*ends, (count, 1))
        case 2:
            scale = 10.0 ** dice.uniform(30, 38, (count, 1))
        case _:
            scale = np.where(dice.random((count, dim)) < 0.05, 10.0 ** dice.uniform(20, 38, (count, dim)), 1.0)
    return np.clip(values * scale, -3e38, 3e38).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([1, 2, 3, 10, 50]))
@settings(max_examples=100, deadline=None)
def test_products_that_leave_float32_hide_no_row_and_warn_of_nothing(seed: int, k: int) -> None:
    """A sum that overflows on its way may be of a row that is far behind, or of the best."""
    dice = np.random.default_rng(seed)
    dim = int(dice.integers(2, 65))
    queries, documents = far(dice, 3, dim), far(dice, int(dice.integers(1, 300)), dim)
    positions, scores = top_k(queries, documents, k)
    for query, found, scored in zip(queries, positions, scores, strict=True):
        with np.errstate(over="ignore"):
            every = (documents.astype(np.float64) * query).sum(axis=1).astype(np.float32)
        wanted = np.argsort(-every, kind="stable")[:k]
        assert found.tolist() == wanted.tolist()
        assert scored.tolist() == every[wanted].tolist()
