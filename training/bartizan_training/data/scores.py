"""Scores that a teacher gave to pairs of query and document, found again by the two texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_training.data.digests import Digests, digests_of, pair_digests
from bartizan_training.data.ragged import Indices

Scores = npt.NDArray[np.float32]

_PAIRS, _SCORES = "pairs.npy", "scores.npy"


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """Scores in order of their pair's digest."""

    pairs: Digests
    scores: Scores

    @classmethod
    def of(cls, pairs: Digests, scores: Scores) -> Self:
        """Scores of these pairs, each of which comes once."""
        order = np.argsort(pairs)
        return cls(pairs[order], scores[order])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote."""
        try:
            return cls(np.load(folder / _PAIRS), np.load(folder / _SCORES))
        except (OSError, ValueError) as error:
            raise Stop(f"the scores in {folder} cannot be read: {error}; train again into another --out") from error

    def write(self, folder: Path) -> None:
        """Save into the folder."""
        np.save(folder / _PAIRS, self.pairs)
        np.save(folder / _SCORES, self.scores)

    def find(self, queries: Sequence[str], documents: Sequence[str], query: Indices, document: Indices) -> Scores:
        """The score of each pair of these numbers; one that was never scored is refused."""
        wanted = pair_digests(digests_of(queries)[query], digests_of(documents)[document])
        places = np.minimum(np.searchsorted(self.pairs, wanted), max(0, len(self.pairs) - 1))
        missing = np.flatnonzero(self.pairs[places] != wanted) if len(self.pairs) else np.arange(len(wanted))
        if missing.size:
            row = missing[0]
            raise WrongUse(
                f"{missing.size} of {len(wanted)} pairs have no score, the first: query {queries[query[row]][:80]!r} "
                f"and document {documents[document[row]][:80]!r}; score the same data, with the same negatives"
            )
        found: Scores = self.scores[places]
        return found


def distinct_pairs(queries: Indices, documents: Indices) -> tuple[Indices, Indices]:
    """Each different pair once, in order of query, then of document."""
    both = np.unique(np.stack([queries, documents], axis=1), axis=0)
    return both[:, 0], both[:, 1]
