"""Topic-aware balanced batches (TAS-Balanced): the queries of a batch are of one topic, their margins of all sizes.

A batch is a pure function of seed and number. 1 A cluster is drawn, each as likely as any other, and from it as many
different queries as the batch holds; while it holds too few, another cluster is drawn that was not drawn before, so
that no query comes twice. 2 For each query one of the bins of its margins is drawn, each that is not empty as likely
as any other, and a row of that bin: the few rows of a rare margin come as often as the many of a common one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.ragged import Indices

_TOPICS, _ROWS = range(2)
"""What a random generator is for; each purpose has its own."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MarginBins:
    """The rows of each query in bins: query → cells → rows. A cell is a bin that is not empty."""

    queries: Indices
    """Those that have enough rows, in rising order."""
    first_cell: Indices
    cells: Indices
    """How many cells each query has, and the first of them."""
    first_row: Indices
    rows: Indices
    """How many rows each cell has, and the first of them in `order`."""
    order: Indices
    """All rows, by query and by bin."""

    @classmethod
    def of(cls, query: Indices, margins: npt.NDArray[np.floating] | None, *, bins: int, at_least: int) -> Self:
        """Rows of these queries and margins; no margins: one bin. Queries with fewer rows than `at_least` are left
        out."""
        bin = np.zeros(len(query), dtype=np.int64) if margins is None else bins_of(query, margins, bins)
        counts = np.bincount(query, minlength=1)
        kept = np.flatnonzero(counts[query] >= at_least)
        order = kept[np.lexsort((kept, bin[kept], query[kept]))]
        key = np.stack([query[order], bin[order]])
        new = np.flatnonzero(np.any(np.diff(key, axis=1, prepend=-1) != 0, axis=0))
        owners = query[order][new]
        queries, first_cell, cells = np.unique(owners, return_index=True, return_counts=True)
        rows = np.diff(new, append=len(order))
        return cls(queries=queries, first_cell=first_cell, cells=cells, first_row=new, rows=rows, order=order)

    def draw(self, places: Indices, random: np.random.Generator) -> Indices:
        """A row for each of the queries at these places: a cell first, then a row of it."""
        share = random.random((2, len(places)))
        cell = self.first_cell[places] + _part(share[0], self.cells[places])
        drawn: Indices = self.order[self.first_row[cell] + _part(share[1], self.rows[cell])]
        return drawn


def bins_of(query: Indices, margins: npt.NDArray[np.floating], bins: int) -> Indices:
    """The bin of each row: so many of equal width between the least and the greatest margin of its query. Margins that
    are all equal are in one."""
    queries = int(query.max()) + 1 if len(query) else 0
    least, greatest = np.full(queries, np.inf), np.full(queries, -np.inf)
    np.minimum.at(least, query, margins)
    np.maximum.at(greatest, query, margins)
    width = (greatest - least)[query]
    share = np.divide(margins - least[query], width, out=np.zeros(len(query)), where=width > 0)
    bin: Indices = np.clip((share * bins).astype(np.int64), 0, bins - 1)  # the greatest margin is in the last bin
    return bin


class TopicSampler:
    """Draws batches of rows."""

    def __init__(self, bins: MarginBins, clusters: Indices | None, batch_size: int, *, seed: Sequence[int]) -> None:
        """`clusters`: the topic of each query, by its number; none: all queries are of one topic."""
        if len(bins.queries) < batch_size:
            raise WrongUse(
                f"a batch of {batch_size} needs as many different queries, but {len(bins.queries)} have rows enough to "
                "draw from: lower batch_size"
            )
        self._bins, self._batch_size, self._seed = bins, batch_size, tuple(seed)
        topics = np.zeros(len(bins.queries), dtype=np.int64) if clusters is None else clusters[bins.queries]
        by_topic = np.argsort(topics, kind="stable")
        self._topics = np.split(by_topic, np.flatnonzero(np.diff(topics[by_topic])) + 1)
        self.batches_per_epoch = len(bins.queries) // batch_size
        """As many as would hold each query once; queries are drawn afresh for each batch, so this is only a length."""

    def batch(self, number: int) -> Indices:
        """The rows of the batch of that number."""
        return self._bins.draw(self.places(number), self._random(_ROWS, number))

    def places(self, number: int) -> Indices:
        """Which queries are in the batch, as places in `MarginBins.queries`; the first topic's come first."""
        random = self._random(_TOPICS, number)
        drawn: list[Indices] = []
        room = self._batch_size
        for topic in random.permutation(len(self._topics)):
            some = random.permutation(self._topics[topic])[:room]
            drawn.append(some)
            room -= len(some)
            if room == 0:
                break
        return np.concatenate(drawn)

    def _random(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, purpose, number])


def _part(share: npt.NDArray[np.float64], counts: Indices) -> Indices:
    """A whole number below each count."""
    part: Indices = np.minimum((share * counts).astype(np.int64), counts - 1)
    return part
