"""Rank fusion against a slower, plainer oracle."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.collection import Hit
from bartizan_connector.fusion import RRF_CONSTANT, alone, best_chunks, fuse

ids = st.sampled_from([f"d{n}" for n in range(12)])
hits = st.lists(
    st.builds(Hit, id=ids, chunk=st.integers(0, 2), score=st.floats(-1, 1), fields=st.just({})), max_size=15
)
legs = st.dictionaries(st.sampled_from(["dense", "sparse", "lexical"]), hits, min_size=1)


def oracle(given: dict[str, list[Hit]]) -> dict[str, Fraction]:
    scores: dict[str, Fraction] = {}
    for leg in given.values():
        seen: list[str] = []
        for hit in leg:
            if hit.id not in seen:
                seen.append(hit.id)
        for rank, id in enumerate(seen, start=1):
            scores[id] = scores.get(id, Fraction(0)) + Fraction(1, RRF_CONSTANT + rank)
    return scores


@given(legs, st.integers(1, 20))
def test_fusion_gives_the_best_by_reciprocal_rank(given: dict[str, list[Hit]], k: int) -> None:
    scores = oracle(given)
    results = fuse(given, k)
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


@given(hits, st.integers(1, 20))
def test_a_single_leg_keeps_its_own_scores_and_each_document_once(given: list[Hit], k: int) -> None:
    results = alone("dense", given, k)
    assert [(r.id, r.score) for r in results] == [(h.id, h.score) for h in best_chunks(given)[:k]]
