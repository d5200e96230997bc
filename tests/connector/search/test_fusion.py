"""Fusion by ranks and by scores against slower, plainer oracles."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config.settings import Fusion
from bartizan_connector.search.fusion import RRF_CONSTANT, alone, best_chunks, fuse
from bartizan_connector.store.collection import Hit

ids = st.sampled_from([f"d{n}" for n in range(12)])
hits = st.lists(
    st.builds(Hit, id=ids, chunk=st.integers(0, 2), score=st.floats(-1, 1), fields=st.just({})), max_size=15
)
NAMES = ("dense", "sparse", "lexical")
legs = st.dictionaries(st.sampled_from(NAMES), hits, min_size=1)
weights = st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 100))


def oracle(given: dict[str, list[Hit]], weights: dict[str, float]) -> dict[str, Fraction]:
    scores: dict[str, Fraction] = {}
    for name, leg in given.items():
        seen: list[str] = []
        for hit in leg:
            if hit.id not in seen:
                seen.append(hit.id)
        for rank, id in enumerate(seen, start=1):
            scores[id] = scores.get(id, Fraction(0)) + Fraction(weights.get(name, 1.0)) / (RRF_CONSTANT + rank)
    return scores


@given(legs, weights, st.integers(1, 20))
def test_fusion_gives_the_best_by_weighted_reciprocal_rank(
    given: dict[str, list[Hit]], weights: dict[str, float], k: int
) -> None:
    scores = oracle(given, weights)
    results = fuse(given, k, weights=weights)
    assert len(results) == min(k, len(scores))
    assert len({result.id for result in results}) == len(results)
    for result in results:
        assert abs(result.score - float(scores[result.id])) < 1e-12
    kept = {result.id for result in results}
    worst = min((scores[id] for id in kept), default=Fraction(0))
    assert all(float(scores[id]) <= float(worst) + 1e-12 for id in scores if id not in kept)


@given(legs)
def test_each_result_tells_the_rank_and_score_of_every_leg_that_found_it(given: dict[str, list[Hit]]) -> None:
    for result in fuse(given, 100):
        for leg, leg_hits in given.items():
            ranked = best_chunks(leg_hits)
            place = result.legs.get(leg)
            if place is None:
                assert result.id not in [hit.id for hit in ranked]
            else:
                assert ranked[place.rank - 1].id == result.id
                assert ranked[place.rank - 1].score == place.score


@given(legs)
def test_the_order_in_which_legs_arrive_changes_nothing(given: dict[str, list[Hit]]) -> None:
    assert fuse(given, 10) == fuse(dict(reversed(given.items())), 10)


def test_equal_scores_are_in_order_of_id() -> None:
    first = [Hit(id="b", chunk=0, score=1, fields={}), Hit(id="a", chunk=0, score=0.5, fields={})]
    second = [Hit(id="a", chunk=0, score=9, fields={}), Hit(id="b", chunk=0, score=3, fields={})]
    assert [result.id for result in fuse({"dense": first, "lexical": second}, 2)] == ["a", "b"]


def test_a_weight_moves_a_leg() -> None:
    first, second = [Hit(id="a", chunk=0, score=1, fields={})], [Hit(id="b", chunk=0, score=1, fields={})]
    fused = fuse({"dense": first, "lexical": second}, 2, weights={"lexical": 2.0})
    assert [result.id for result in fused] == ["b", "a"]
    assert [result.score for result in fused] == [2 / 61, 1 / 61]


@given(legs)
def test_a_weight_of_one_is_plain_rank_fusion(given: dict[str, list[Hit]]) -> None:
    assert fuse(given, 20, weights={"lexical": 1.0}) == fuse(given, 20, weights=dict.fromkeys(NAMES, 1.0))
    assert fuse(given, 20, weights={"lexical": 1.0}) == fuse(given, 20)


@given(legs, weights)
def test_what_no_leg_ranks_worse_never_comes_later(given: dict[str, list[Hit]], weights: dict[str, float]) -> None:
    results = fuse(given, 100, weights=weights)
    for earlier, later in pairwise(results):
        assert any(
            earlier.legs[leg].rank < (later.legs[leg].rank if leg in later.legs else 10**6) for leg in earlier.legs
        )  # no two share a place in a leg


@given(legs, weights, st.integers(-20, 20))
def test_scaling_every_weight_keeps_the_order(
    given: dict[str, list[Hit]], weights: dict[str, float], power: int
) -> None:
    """By powers of two, as these lose nothing in binary."""
    full = dict.fromkeys(NAMES, 1.0) | weights
    scaled = {leg: weight * 2.0**power for leg, weight in full.items()}
    before, after = fuse(given, 20, weights=full), fuse(given, 20, weights=scaled)
    assert [(r.id, r.score * 2.0**power, r.legs) for r in before] == [(r.id, r.score, r.legs) for r in after]


@given(hits, hits, st.floats(1e-12, 1e-9))
def test_a_leg_of_tiny_weight_only_adds_below(strong: list[Hit], weak: list[Hit], weight: float) -> None:
    fused = [result.id for result in fuse({"dense": strong, "lexical": weak}, 100, weights={"lexical": weight})]
    by_the_strong = [hit.id for hit in best_chunks(strong)]
    assert fused[: len(by_the_strong)] == by_the_strong
    assert fused[len(by_the_strong) :] == [hit.id for hit in best_chunks(weak) if hit.id not in by_the_strong]


@given(weights)
def test_equal_ranks_in_equal_legs_tie_whatever_the_weights(weights: dict[str, float]) -> None:
    """Three legs rank three documents in a circle: with equal weights every sum is the same, in whatever order."""
    weight = weights.get("dense", 1.0)
    circle = {
        leg: [Hit(id="abc"[(i + n) % 3], chunk=0, score=0, fields={}) for n in range(3)] for i, leg in enumerate(NAMES)
    }
    results = fuse(circle, 3, weights=dict.fromkeys(NAMES, weight))
    assert [result.id for result in results] == ["a", "b", "c"]
    assert len({result.score for result in results}) == 1


def stretched(leg: list[Hit]) -> dict[str, float]:
    """Each document's best score, with the leg's best at 1 and its worst at 0."""
    best: dict[str, float] = {}
    for hit in leg:
        best.setdefault(hit.id, hit.score)
    span = max(best.values(), default=0) - min(best.values(), default=0)
    return {id: (score - min(best.values())) / span if span else 1.0 for id, score in best.items()}


@given(legs, weights, st.integers(1, 20))
def test_by_scores_the_best_have_the_largest_weighted_sum(
    given: dict[str, list[Hit]], weights: dict[str, float], k: int
) -> None:
    sums: dict[str, float] = {}
    for name, leg in given.items():
        for id, share in stretched(leg).items():
            sums[id] = sums.get(id, 0.0) + weights.get(name, 1.0) * share
    results = fuse(given, k, weights=weights, fusion="scores")
    assert [result.score for result in results] == pytest.approx(sorted(sums.values(), reverse=True)[:k])
    for result in results:
        assert result.score == pytest.approx(sums[result.id])


@given(legs, st.sampled_from([2.0, 4.0, 1024.0]))
def test_by_scores_only_distances_within_a_leg_count(given: dict[str, list[Hit]], scale: float) -> None:
    """BM25 may be stretched, by powers of two as these lose nothing in binary."""
    moved = {name: [replace(hit, score=hit.score * scale) for hit in leg] for name, leg in given.items()}
    before, after = (fuse(each, 20, fusion="scores") for each in (given, moved))
    assert [(result.id, result.score) for result in before] == [(result.id, result.score) for result in after]


def test_by_scores_the_best_vector_stays_first_where_ranks_would_pass_it() -> None:
    dense = [Hit(id=id, chunk=0, score=score, fields={}) for id, score in (("a", 0.9), ("b", 0.5), ("c", 0.1))]
    lexical = [Hit(id="b", chunk=0, score=7.0, fields={}), Hit(id="d", chunk=0, score=1.0, fields={})]
    found = {"dense": dense, "lexical": lexical}
    by_ranks, by_scores = (
        [result.id for result in fuse(found, 4, weights={"lexical": 0.2}, fusion=fusion)] for fusion in get_args(Fusion)
    )
    assert by_ranks == ["b", "a", "c", "d"]
    assert by_scores == ["a", "b", "c", "d"]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_gives_no_order_is_refused(weight: float) -> None:
    with pytest.raises(WrongUse, match="the weight of the lexical leg is"):
        fuse({}, 1, weights={"lexical": weight})


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(WrongUse, match="fusion = 'mean' is not known; give 'rrf' or 'scores'"):
        fuse({}, 1, fusion="mean")  # type: ignore[arg-type]


@given(hits, st.integers(1, 20))
def test_a_single_leg_keeps_its_own_scores_and_each_document_once(given: list[Hit], k: int) -> None:
    results = alone("dense", given, k)
    assert [(r.id, r.score) for r in results] == [(h.id, h.score) for h in best_chunks(given)[:k]]


def test_the_chunk_that_is_shown_is_that_of_the_leg_that_counts_most_and_each_leg_tells_its_own() -> None:
    def hit(id: str, chunk: int) -> Hit:
        return Hit(id=id, chunk=chunk, score=1.0, fields={"text": f"{id}{chunk}"})

    given = {"dense": [hit("x", 0), hit("a", 3)], "lexical": [hit("a", 5), hit("a", 3), hit("x", 1)]}
    shown = {result.id: result for result in fuse(given, 10)}
    assert (shown["a"].chunk, shown["a"].fields["text"], shown["x"].chunk) == (5, "a5", 0)
    assert {leg: place.chunk for leg, place in shown["a"].legs.items()} == {"dense": 3, "lexical": 5}
    assert {result.id: result.chunk for result in fuse(given, 10, weights={"dense": 9.0})} == {"a": 3, "x": 0}
    assert [(result.chunk, result.legs["dense"].chunk) for result in alone("dense", given["dense"], 9)] == [
        (0, 0),
        (3, 3),
    ]
