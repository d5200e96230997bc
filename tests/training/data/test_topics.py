"""Topic-aware balanced batches: what is in one, and that it depends on seed and number alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.topics import MarginBins, TopicSampler, bins_of

Rows = list[tuple[int, float]]
"""Query and margin."""
margins = st.one_of(st.floats(-100, 100), st.just(2.5), st.sampled_from([0.0, 1.0, 10.0]))
some_rows = st.lists(st.tuples(st.integers(0, 15), margins), min_size=1, max_size=120)


def bins(rows: Rows, *, count: int = 10, at_least: int = 2) -> MarginBins:
    query = np.array([query for query, _ in rows], dtype=np.int64)
    return MarginBins.of(query, np.array([margin for _, margin in rows]), bins=count, at_least=at_least)


def even(queries: int, rows_each: int) -> MarginBins:
    return bins([(query, float(row)) for query in range(queries) for row in range(rows_each)])


@given(some_rows)
def test_bins_are_of_equal_width_between_a_querys_least_and_greatest_margin(rows: Rows) -> None:
    query, margin = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = bins_of(query, margin, 10)
    for one in set(query.tolist()):
        own, least, greatest = query == one, margin[query == one].min(), margin[query == one].max()
        if greatest == least:
            assert (found[own] == 0).all()
            continue
        width = (greatest - least) / 10
        edges = least + width * np.arange(10)
        for value, bin in zip(margin[own], found[own], strict=True):
            if np.abs(value - edges).min() > 1e-9 * (abs(least) + abs(greatest)):
                assert bin == np.digitize(value, edges) - 1
            assert 0 <= bin <= 9
        assert found[own][margin[own] == greatest].tolist() == [9] * int((margin[own] == greatest).sum())


@given(some_rows, st.integers(0, 1000))
def test_a_drawn_row_is_the_querys_own_and_every_row_can_be_drawn(rows: Rows, seed: int) -> None:
    made = bins(rows)
    counts = np.bincount([query for query, _ in rows])
    assert made.queries.tolist() == [query for query, count in enumerate(counts) if count >= 2]
    if not len(made.queries):
        return
    places = np.repeat(np.arange(len(made.queries)), 20)
    drawn = made.draw(places, np.random.default_rng(seed))
    assert all(rows[row][0] == made.queries[place] for row, place in zip(drawn, places, strict=True))
    assert sorted(made.order.tolist()) == [i for i, (query, _) in enumerate(rows) if counts[query] >= 2]


def test_bins_that_are_not_empty_come_equally_often_however_many_rows_they_hold() -> None:
    rare, common = [(0, 0.0), (0, 0.1)], [(0, 10.0 - i / 1000) for i in range(98)]
    made = bins([*rare, *common])
    drawn = made.draw(np.zeros(20000, dtype=np.int64), np.random.default_rng(0))
    assert np.mean(drawn < 2) == pytest.approx(0.5, abs=0.015)
    assert np.bincount(drawn[drawn < 2]) / 20000 == pytest.approx([0.25, 0.25], abs=0.01)
    assert len(set(drawn.tolist())) == 100


def test_without_margins_all_rows_of_a_query_come_equally_often() -> None:
    query = np.zeros(50, dtype=np.int64)
    made = MarginBins.of(query, None, bins=10, at_least=2)
    drawn = made.draw(np.zeros(50000, dtype=np.int64), np.random.default_rng(0))
    assert np.bincount(drawn, minlength=50) / 50000 == pytest.approx([0.02] * 50, abs=0.004)


def test_a_query_whose_margins_are_all_equal_has_one_bin() -> None:
    made = bins([(0, 3.0)] * 4 + [(1, 1.0), (1, 2.0)])
    assert made.cells.tolist() == [1, 2]
    drawn = made.draw(np.zeros(100, dtype=np.int64), np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 100),
    number=st.integers(0, 50),
)
def test_a_batch_is_one_topic_and_what_fills_it_up_without_a_query_twice(
    sizes: list[int], batch_size: int, seed: int, number: int
) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)[np.random.default_rng(seed).permutation(sum(sizes))]
    made = even(sum(sizes), 3)
    if sum(sizes) < batch_size:
        with pytest.raises(WrongUse, match="lower batch_size"):
            TopicSampler(made, clusters, batch_size, seed=(seed,))
        return
    sampler = TopicSampler(made, clusters, batch_size, seed=(seed,))
    places = sampler.places(number)
    assert len(places) == batch_size == len(set(places.tolist()))
    topics = clusters[made.queries[places]].tolist()
    order = list(dict.fromkeys(topics))
    assert topics == sorted(topics, key=order.index), "the rows of one topic stand together"
    for topic in order[:-1]:
        assert topics.count(topic) == sizes[topic], "another topic comes only when the one before is used up"
    assert [made.queries[place] for place in places] == [row // 3 for row in sampler.batch(number)]


def test_topics_come_equally_often_whatever_their_size() -> None:
    clusters = np.array([0] * 90 + [1] * 10 + [5] * 10)
    sampler = TopicSampler(even(110, 2), clusters, 5, seed=(0,))
    first = [clusters[sampler.places(number)[0]] for number in range(3000)]
    assert np.bincount(first)[[0, 1, 5]] / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    clusters = np.arange(60) % 4
    walked, fresh, other = (TopicSampler(even(60, 5), clusters, 12, seed=(seed, 1)) for seed in (3, 3, 4))
    for number in range(7):
        walked.batch(number)
    assert np.array_equal(walked.batch(7), fresh.batch(7))
    assert not np.array_equal(fresh.batch(7), fresh.batch(8))
    assert not np.array_equal(fresh.batch(7), other.batch(7))


def test_without_clusters_a_batch_is_of_all_queries() -> None:
    sampler = TopicSampler(even(60, 2), None, 12, seed=(0,))
    seen = {int(place) for number in range(60) for place in sampler.places(number)}
    assert seen == set(range(60))
    assert sampler.batches_per_epoch == 5
