"""Fusion: several ranked lists into one, by ranks or by scores, with each list's rank and score kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config.settings import Fusion
from bartizan_connector.store.collection import Hit, Scalar

RRF_CONSTANT = 60
"""Cormack, Clarke and Büttcher's constant: how little the very first ranks stand out."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one leg ranked a document, from 1, and the leg's own score."""

    rank: int
    score: float
    chunk: int = 0
    """Which of the document's chunks the leg found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One document of an answer; a bigger score is better."""

    id: str
    chunk: int
    """The number of the chunk that is shown, from 0: that of the leg which counts most."""
    score: float
    legs: Mapping[str, Place]
    fields: Mapping[str, Scalar]
    """What is stored of it; `text` is the chunk's own."""


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
            raise WrongUse(f"the weight of the {leg} leg is {weight}; give a number above 0 (1: as much as any other)")


def check_fusion(fusion: str) -> None:
    """Refuse a fusion that is none, rather than take it for another."""
    if fusion not in get_args(Fusion):
        raise WrongUse(f"fusion = {fusion!r:.80} is not known; give {' or '.join(map(repr, get_args(Fusion)))}")


def fuse(
    legs: Mapping[str, Sequence[Hit]],
    k: int,
    *,
    weights: Mapping[str, float] | None = None,
    fusion: Fusion = "rrf",
) -> tuple[Result, ...]:
    """The k best documents by the sum over legs of weight × share; ties by id. A leg that is not in `weights` weighs 1,
    and a document that a leg did not find has no share of it."""
    weights = weights or {}
    check_weights(weights)
    check_fusion(fusion)
    ranked = {leg: best_chunks(hits) for leg, hits in legs.items()}
    places: dict[str, dict[str, Place]] = {}
    shown: dict[str, tuple[float, Hit]] = {}
    shares: dict[str, list[float]] = {}
    for leg, hits in sorted(ranked.items()):
        weight = weights.get(leg, 1.0)
        for (rank, hit), share in zip(enumerate(hits, start=1), _shares(hits, fusion), strict=True):
            places.setdefault(hit.id, {})[leg] = Place(rank, hit.score, hit.chunk)
            if hit.id not in shown or weight * share > shown[hit.id][0]:
                shown[hit.id] = weight * share, hit
            shares.setdefault(hit.id, []).append(weight * share)
    scores = {id: math.fsum(parts) for id, parts in shares.items()}  # in any order the same sum, so that ties are ties
    order = sorted(scores, key=lambda id: (-scores[id], id))[:k]
    return tuple(
        Result(id=id, chunk=hit.chunk, score=scores[id], legs=places[id], fields=hit.fields)
        for id, (_, hit) in ((id, shown[id]) for id in order)
    )


def _shares(hits: Sequence[Hit], fusion: Fusion) -> list[float]:
    """What each hit of one leg counts, best first."""
    if fusion == "rrf":
        return [1 / (RRF_CONSTANT + rank) for rank in range(1, len(hits) + 1)]
    scores = [hit.score for hit in hits]
    least, most = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - least) / (most - least) if most > least else 1.0 for score in scores]


def alone(leg: str, hits: Sequence[Hit], k: int) -> tuple[Result, ...]:
    """The answer of a single leg, at the leg's own scores."""
    return tuple(
        Result(
            id=hit.id,
            chunk=hit.chunk,
            score=hit.score,
            legs={leg: Place(rank, hit.score, hit.chunk)},
            fields=hit.fields,
        )
        for rank, hit in enumerate(best_chunks(hits)[:k], start=1)
    )
