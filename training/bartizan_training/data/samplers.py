"""Which examples make up a batch: a pure function of seed and batch number, so that a resumed run replays nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pair_tables import PairSource
from bartizan_training.data.pairs import Pairs
from bartizan_training.data.ragged import Indices, Ragged, joined_ranges

_ORDER, _POSITIVES, _NEGATIVES = range(3)
"""What a random generator is for; each purpose has its own, so that one's use never shifts another's."""


class Order:
    """Epochs of a fresh permutation each, cut into batches; what does not fill a batch waits for another epoch."""

    def __init__(self, examples: int, batch_size: int, *, seed: Sequence[int]) -> None:
        if examples < batch_size:
            raise WrongUse(
                f"a batch of {batch_size} needs as many examples, but there are {examples}: lower batch_size"
            )
        self._seed = tuple(seed)
        self._batch_size = batch_size
        self.batches_per_epoch = examples // batch_size
        self._permutation = lru_cache(maxsize=2)(lambda epoch: self.random(_ORDER, epoch).permutation(examples))

    def batch(self, number: int) -> Indices:
        """The examples of the batch, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        batch: Indices = self._permutation(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        return batch

    def random(self, purpose: int, number: int) -> np.random.Generator:
        """A generator for that purpose and number alone."""
        return np.random.default_rng([*self._seed, purpose, number])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairBatch:
    """B queries and N documents by index into Pairs: first each query's own document, then all hard negatives."""

    queries: Indices
    documents: Indices
    known: npt.NDArray[np.bool_]
    """[B, N]: the document is judged positive for the query."""


class PairSampler:
    """Draws batches of query, own document and hard negatives."""

    def __init__(self, pairs: Pairs, table: PairSource, batch_size: int, *, seed: Sequence[int]) -> None:
        self._positives = Ragged.of(pairs.positives)
        self._negatives = None if pairs.negatives is None else Ragged.of(pairs.negatives)
        self._pool = np.unique(self._negatives.flat) if self._negatives else None
        self._per_query = table.negatives_per_query
        self._by_query = table.sampler == "queries"
        examples = len(pairs.queries) if self._by_query else len(self._positives.flat)
        self._owners = self._positives.owners
        self._order = Order(examples, batch_size, seed=seed)
        self.batches_per_epoch = self._order.batches_per_epoch

    def batch(self, number: int) -> PairBatch:
        """The batch of that number."""
        drawn = self._order.batch(number)
        if self._by_query:
            queries, positives = drawn, self._positives.pick(drawn)
            share_of_row = self._order.random(_POSITIVES, number).random(len(drawn))
            places = (share_of_row * positives.lengths).astype(np.int64)
            own = positives.flat[positives.starts + np.minimum(places, positives.lengths - 1)]
        else:
            queries, own = self._owners[drawn], self._positives.flat[drawn]
        documents = np.concatenate([own, self._draw_negatives(queries, number)])
        return PairBatch(queries=queries, documents=documents, known=self._known(queries, documents))

    def _known(self, queries: Indices, documents: Indices) -> npt.NDArray[np.bool_]:
        positives = self._positives.pick(queries)
        order = np.argsort(documents, kind="stable")
        first = np.searchsorted(documents[order], positives.flat, side="left")
        counts = np.searchsorted(documents[order], positives.flat, side="right") - first
        known = np.zeros((len(queries), len(documents)), dtype=np.bool_)
        known[np.repeat(positives.owners, counts), order[joined_ranges(first, counts)]] = True
        return known

    def _draw_negatives(self, queries: Indices, number: int) -> Indices:
        """As many for each query, different ones as far as there are enough; a query without any gets others'."""
        if self._negatives is None or self._pool is None:
            return np.zeros(0, dtype=np.int64)
        draw = self._order.random(_NEGATIVES, number)
        rows = self._negatives.pick(queries)
        shuffled = rows.flat[np.lexsort((draw.random(len(rows.flat)), rows.owners))]
        places = np.arange(self._per_query) % np.maximum(rows.lengths, 1)[:, None]
        drawn = np.empty(places.shape, dtype=np.int64)
        some = rows.lengths > 0
        drawn[some] = shuffled[rows.starts[some, None] + places[some]]
        for row in np.flatnonzero(~some):
            drawn[row] = np.resize(draw.permutation(self._pool), self._per_query)
        return drawn.reshape(-1)


def share(batch: Indices, rank: int, processes: int) -> Indices:
    """The part of a batch that one process works on."""
    require_even(len(batch), processes)
    size = len(batch) // processes
    return batch[rank * size : (rank + 1) * size]


def require_even(batch_size: int, processes: int) -> None:
    """Refuse a batch that the processes cannot share evenly."""
    if batch_size % processes:
        raise WrongUse(f"batch_size = {batch_size} cannot be shared evenly by {processes} processes")
