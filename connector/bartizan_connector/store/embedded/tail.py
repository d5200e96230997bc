"""The tail: dense vectors in memory that are searched exactly, to the last bit as the oracle does."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded.allowed import Passing, positions
from bartizan_connector.store.embedded.codes import Codes, Coding
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.graph import products, products_of
from bartizan_connector.store.embedded.rows import Numbers
from bartizan_connector.store.exact import longest_of, may_overflow, near_best, slack_of

_SCORES = 1 << 22
"""Scores held at once: 16 MiB."""
_ALONE = 4
"""Queries at once; more are cheaper as one product of matrices."""
_SPARE = 32
"""Rows beyond 2 k that are compared after their codes."""
_SO_FEW = 64
"""Rows that are compared exactly at once: picking candidates first would take longer."""
_UNCODED = 256
"""The newest rows, so many at most, are compared without codes."""
_FEW = 4
"""One row in so many: fewer are gathered before they are multiplied, more are multiplied with the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Rows by rising number, and their vectors; what is appended later lies behind what an older tail sees."""

    rows: Numbers
    matrix: Floats
    alive: npt.NDArray[np.bool_] | None
    """None: all of them."""
    longest: float
    codes: Codes | None = None
    """Of the first rows; the few behind them have none yet."""

    @classmethod
    def empty(cls, dim: int) -> "Tail":
        return cls(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), None, 0.0)

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, allowed: Passing | None) -> Numbers | None:
        """The positions of those that live and are allowed; None: all."""
        if allowed is None:
            return None if self.alive is None else np.flatnonzero(self.alive)
        found = positions(self.rows, allowed.rows)
        return found if self.alive is None else found[self.alive[found]]

    def best(
        self, queries: Floats, k: int, allowed: Passing | None, deadline: Deadline
    ) -> list[tuple[Numbers, Floats]]:
        """For each query the row numbers and scores of the k best, and of all that tie with the last of them."""
        chosen = self.chosen(allowed)
        count = len(self) if chosen is None else len(chosen)
        if not count:
            return [(self.rows[:0], np.zeros(0, np.float32))] * len(queries)
        if count <= _SO_FEW and len(queries) <= _ALONE:
            return [self._exactly(query, min(k, count), chosen) for query in queries]
        if self.codes is not None and len(queries) <= _ALONE and allowed is None:
            return [self._proven(query, k, chosen, deadline) for query in queries]
        return self._compared(queries, k, chosen, deadline)

    def _proven(self, query: Floats, k: int, chosen: Numbers | None, deadline: Deadline) -> tuple[Numbers, Floats]:
        """By the codes, as soon as they prove that nothing better is left."""
        assert self.codes is not None
        slack, wanted = slack_of(query, self.longest), _SPARE + 2 * k
        while wanted * _FEW < len(self) and not may_overflow(slack):
            deadline.check()
            found, said, margin = self.codes.best(query, wanted)
            most = float(said[-1]) + margin  # of all rows that were not found
            found = np.concatenate([found, np.arange(len(self.codes), len(self))])
            if self.alive is not None:
                found = found[self.alive[found]]
            if len(found) >= k:
                approximate = products_of(self.matrix, found, query)
                least = float(np.partition(approximate, len(found) - k)[len(found) - k]) - slack
                # Both comparisons rest on the slack being four times what a product may be beside the true one.
                # `least`: whatever is among the k best, ties too, is found there or above; near_best says why.
                # `least - slack`: k rows are truly above `least` by three quarters of a slack at least, so that a row
                # which was not found, truly at `most` or below, would not even tie if `least` alone were above `most`.
                # The slack that is taken off once more is to spare, for the rounding in `most` itself.
                if least - slack > most:
                    return self._exactly(query, k, found[~(approximate < least)])
            wanted *= 8
        return self._compared(query[None], k, chosen, deadline)[0]

    def _compared(
        self, queries: Floats, k: int, chosen: Numbers | None, deadline: Deadline
    ) -> list[tuple[Numbers, Floats]]:
        """Row by row."""
        count = len(self) if chosen is None else len(chosen)
        few = chosen is not None and len(chosen) * _FEW < len(self)
        matrix = self.matrix[chosen] if few else self.matrix
        found = []
        block = max(1, _SCORES // len(matrix))
        for start in range(0, len(queries), block):
            deadline.check()
            some = queries[start : start + block]
            with np.errstate(over="ignore", invalid="ignore"):
                approximate = products(matrix, some[0])[None] if len(some) == 1 else some @ matrix.T
            if chosen is not None and not few:
                approximate = approximate[:, chosen]
            for query, scores in zip(some, approximate, strict=True):
                found.append(self._exact(query, scores, min(k, count), chosen))
        return found

    def _exact(self, query: Floats, approximate: Floats, k: int, chosen: Numbers | None) -> tuple[Numbers, Floats]:
        """A product's last bits depend on the row's place in the matrix: they pick candidates with room to spare."""
        candidates = near_best(approximate, k, slack_of(query, self.longest))
        return self._exactly(query, k, candidates if chosen is None else chosen[candidates])

    def _exactly(self, query: Floats, k: int, chosen: Numbers | None) -> tuple[Numbers, Floats]:
        """The k best of the chosen."""
        rows, matrix = (self.rows, self.matrix) if chosen is None else (self.rows[chosen], self.matrix[chosen])
        scores = exact_scores(matrix, query)
        if k == len(scores):
            return rows, scores
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        return rows[scores >= least], scores[scores >= least]


class Growing:
    """Room behind the tail, so that appending copies seldom."""

    def __init__(self, dim: int) -> None:
        self._rows = np.zeros(0, np.int64)
        self._matrix = np.zeros((0, dim), np.float32)
        self._coding = Coding()
        self._coded: Codes | None = None

    def appended(self, tail: Tail, rows: Numbers, matrix: Floats) -> Tail:
        """The tail and these rows behind it."""
        if not len(rows):
            return tail
        used, size = len(tail), len(tail) + len(rows)
        if tail.matrix.base is not self._matrix or size > len(self._rows):
            room = max(size + size // 2, 256)
            fresh_rows, fresh = np.empty(room, np.int64), np.empty((room, matrix.shape[1]), np.float32)
            fresh_rows[:used], fresh[:used] = tail.rows, tail.matrix
            if tail.matrix.base is not self._matrix:
                self._coding, self._coded = Coding(), None
            self._rows, self._matrix = fresh_rows, fresh
        self._rows[used:size], self._matrix[used:size] = rows, matrix
        alive = tail.alive
        if alive is not None:
            alive = np.concatenate([alive, np.ones(len(rows), np.bool_)])
        longest = max(tail.longest, longest_of(matrix))
        return Tail(self._rows[:size], self._matrix[:size], alive, longest)

    def coded(self, tail: Tail) -> Tail:
        """The tail with the codes of its rows, but for the last few: each time all codes are copied."""
        if tail.matrix.base is not self._matrix:
            return replace(tail, codes=None)
        if self._coded is None or len(tail) - len(self._coded) > _UNCODED:
            self._coded = self._coding.codes(tail.matrix)
        return replace(tail, codes=self._coded)


def exact_scores(matrix: Floats, query: Floats) -> Floats:
    """Summed in float64, row by row, and rounded once."""
    with np.errstate(over="ignore"):
        scores: Floats = (matrix.astype(np.float64) * query).sum(axis=1).astype(np.float32)
    return scores
