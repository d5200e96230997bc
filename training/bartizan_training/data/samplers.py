"""Which examples make up a batch: a pure function of seed and batch number, so that a resumed run replays nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pairs import Pairs
from bartizan_training.settings import PairsTable

Indices = npt.NDArray[np.int64]

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
        self._permutation = lru_cache(maxsize=1)(lambda epoch: self.random(_ORDER, epoch).permutation(examples))

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

    def __init__(self, pairs: Pairs, table: PairsTable, batch_size: int, *, seed: Sequence[int]) -> None:
        self._pairs = pairs
        self._per_query = table.negatives_per_query
        self._pool = sorted({document for bad in pairs.negatives or () for document in bad})
        if table.sampler == "queries":
            owners = [(query, -1) for query in range(len(pairs.queries))]
        else:
            owners = [(query, document) for query, good in enumerate(pairs.positives) for document in good]
        self._examples = np.array(owners, dtype=np.int64)
        self._order = Order(len(owners), batch_size, seed=seed)
        self.batches_per_epoch = self._order.batches_per_epoch

    def batch(self, number: int) -> PairBatch:
        """The batch of that number."""
        queries, own = self._examples[self._order.batch(number)].T
        draw = self._order.random(_POSITIVES, number)
        chosen = [
            document if document >= 0 else draw.choice(self._pairs.positives[query])
            for query, document in zip(queries, own, strict=True)
        ]
        documents = np.array(chosen + self._draw_negatives(queries, number), dtype=np.int64)
        return PairBatch(queries=queries, documents=documents, known=self._known(queries, documents))

    def _known(self, queries: Indices, documents: Indices) -> npt.NDArray[np.bool_]:
        places: dict[int, list[int]] = {}
        for place, document in enumerate(documents.tolist()):
            places.setdefault(document, []).append(place)
        known = np.zeros((len(queries), len(documents)), dtype=np.bool_)
        for row, query in enumerate(queries):
            for document in self._pairs.positives[query]:
                known[row, places.get(document, [])] = True
        return known

    def _draw_negatives(self, queries: Indices, number: int) -> list[int]:
        """As many for each query, different ones as far as there are enough; a query without any gets others'."""
        if self._pairs.negatives is None:
            return []
        draw = self._order.random(_NEGATIVES, number)
        drawn: list[int] = []
        for query in queries:
            shuffled = draw.permutation(self._pairs.negatives[query] or self._pool)
            drawn.extend(np.resize(shuffled, self._per_query).tolist())
        return drawn


def share(batch: Indices, rank: int, processes: int) -> Indices:
    """The part of a batch that one process works on."""
    size, rest = divmod(len(batch), processes)
    if rest:
        raise WrongUse(f"batch_size = {len(batch)} cannot be shared evenly by {processes} processes")
    return batch[rank * size : (rank + 1) * size]
