"""The graph: what a filter lets through is found whatever its share, and the order of queries is that of directions."""

from threading import Event

import numpy as np
import pytest

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded.graph import Building, Graph, Selection
from bartizan_connector.store.embedded.rows import Moment

ROWS, DIM, CLUSTERS, K = 6_000, 24, 60, 15


def _drawn(count: int, seed: int) -> Floats:
    centres = np.random.default_rng(9).standard_normal((CLUSTERS, DIM))
    dice = np.random.default_rng(seed)
    values = centres[dice.integers(0, CLUSTERS, count)] + 0.7 * dice.standard_normal((count, DIM))
    unit: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return unit


MATRIX = _drawn(ROWS, 1)
ASKED = _drawn(40, 2)


@pytest.fixture(scope="module")
def graph() -> Graph:
    making = Building(DIM, Event(), 1)
    assert making.begin(MATRIX)
    assert making.add(np.arange(1, ROWS + 1), MATRIX)
    return making.finished(Moment(1, ROWS, 0))


@pytest.mark.parametrize("scanned", [4_000, 0], ids=["as set", "walked"])
@pytest.mark.parametrize("share", [0.003, 0.03, 0.1, 0.3, 0.6, 0.95])
def test_what_a_filter_lets_through_is_found_whatever_its_share(
    graph: Graph, share: float, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bartizan_connector.store.embedded.graph._SCAN_ROWS", scanned)
    monkeypatch.setattr("bartizan_connector.store.embedded.graph._SCANNED", min(128, scanned))
    mask = np.random.default_rng(3).random(ROWS) < share
    selected, passing, found = Selection(mask), np.flatnonzero(mask), 0
    wanted = min(10, len(passing))
    for query in ASKED:
        best = passing[np.argsort(-(MATRIX[passing] @ query))[:wanted]]
        ours = graph.nearest(query, K, selected)
        assert len(ours) == min(K, len(passing))
        assert mask[ours].all()
        found += len(set(ours.tolist()) & set(best.tolist()))
    assert found >= 0.95 * wanted * len(ASKED)


def test_a_filter_that_lets_through_a_far_corner_is_answered_from_there(graph: Graph) -> None:
    """A walk would end among rows that do not pass."""
    scores = MATRIX @ ASKED[0]
    mask = scores < -0.3
    best = np.sort(scores[mask])[::-1][:10]
    ours = np.sort(scores[graph.nearest(ASKED[0], K, Selection(mask))])[::-1][:10]
    assert mask.sum() > 10 * K
    assert np.all(ours > best - 0.005)


@pytest.mark.parametrize("factor", [1e-37, 1e-3, 1e37])
def test_only_the_direction_of_a_query_counts(graph: Graph, factor: float) -> None:
    for query in ASKED[:10]:
        long = query * np.float32(factor)
        assert graph.nearest(long, K, None).tolist() == graph.nearest(query, K, None).tolist()


@pytest.mark.parametrize("peak", [0.0, 1e-38, 1e20])
def test_numbers_that_a_byte_cannot_hold_begin_no_graph(peak: float) -> None:
    assert not Building(2, Event(), 1).begin(np.array([[peak, 0]], np.float32))


def test_rows_beyond_the_first_ones_numbers_are_cut_off_and_found(graph: Graph) -> None:
    making = Building(DIM, Event(), 1)
    assert making.begin(MATRIX[:500])
    assert making.add(np.arange(1, 501), MATRIX[:500])
    making.add(np.array([501]), MATRIX[:1] * np.float32(1e14))
    assert 500 in making.finished(Moment(1, 501, 0)).nearest(MATRIX[0], K, None)


@pytest.mark.parametrize("odd", ["a large dimension", "a long row"])
def test_one_odd_number_does_not_blur_all_others(odd: str) -> None:
    matrix, asked = MATRIX.copy(), ASKED.copy()
    if odd == "a long row":
        matrix[17] *= 300
    else:
        matrix[:, 3] += 30
        asked[:, 3] += 30
    making = Building(DIM, Event(), 1)
    assert making.begin(matrix)
    assert making.add(np.arange(1, ROWS + 1), matrix)
    graph, found = making.finished(Moment(1, ROWS, 0)), 0
    for query in asked:
        best = np.argsort(-(matrix @ query))[:10]
        ours = graph.nearest(query, K, None).tolist()
        found += len(set(ours) & set(best.tolist()))
        assert graph.nearest(query * np.float32(2.0**112), K, None).tolist() == ours, "the direction alone counts"
    assert found >= 0.95 * 10 * len(asked)
    assert not graph.is_whole
