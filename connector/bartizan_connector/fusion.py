"""Reciprocal rank fusion: several ranked lists into one, with each list's rank and score kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bartizan_connector.collection import Hit, Scalar
from bartizan_connector.errors import WrongUse

RRF_CONSTANT = 60
"""Cormack, Clarke and Büttcher's constant: how little the very first ranks stand out."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one leg ranked a document, from 1, and the leg's own score."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One document of an answer; a bigger score is better."""

    id: str
    chunk: int
    score: float
    legs: Mapping[str, Place]
    fields: Mapping[str, Scalar]


def best_chunks(hits: Sequence[Hit]) -> list[Hit]:
    """Each document once, at its best chunk, in the order given."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.id, hit)
    return list(best.values())


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse a weight that gives no order; 0 is refused too, as a leg that counts nothing should not be searched."""
    for leg, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise WrongUse(f"the weight of the {leg} leg is {weight}; give a number above 0 (1: plain rank fusion)")


def fuse(
    legs: Mapping[str, Sequence[Hit]], k: int, *, weights: Mapping[str, float] | None = None
) -> tuple[Result, ...]:
    """The k best documents by the sum over legs of weight / (60 + rank); ties by id. A leg that is not in `weights`
    weighs 1."""
    weights = weights or {}
    check_weights(weights)
    ranked = {leg: best_chunks(hits) for leg, hits in legs.items()}
    places: dict[str, dict[str, Place]] = {}
    shown: dict[str, Hit] = {}
    shares: dict[str, list[float]] = {}
    for leg, hits in sorted(ranked.items()):
        weight = weights.get(leg, 1.0)
        for rank, hit in enumerate(hits, start=1):
            places.setdefault(hit.id, {})[leg] = Place(rank, hit.score)
            shown.setdefault(hit.id, hit)
            shares.setdefault(hit.id, []).append(weight / (RRF_CONSTANT + rank))
    scores = {id: math.fsum(parts) for id, parts in shares.items()}  # in any order the same sum, so that ties are ties
    order = sorted(scores, key=lambda id: (-scores[id], id))[:k]
    return tuple(
        Result(id=id, chunk=shown[id].chunk, score=scores[id], legs=places[id], fields=shown[id].fields) for id in order
    )


def alone(leg: str, hits: Sequence[Hit], k: int) -> tuple[Result, ...]:
    """The answer of a single leg, at the leg's own scores."""
    return tuple(
        Result(id=hit.id, chunk=hit.chunk, score=hit.score, legs={leg: Place(rank, hit.score)}, fields=hit.fields)
        for rank, hit in enumerate(best_chunks(hits)[:k], start=1)
    )
