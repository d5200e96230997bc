"""Cross-encoder stage: a teacher of pairs learns to put a document that answers a query above one that does not."""

from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Packed
from bartizan_training.data.samplers import Order, share
from bartizan_training.margin_losses import rank_net
from bartizan_training.stages.stage import Batch, Embedded, Stage
from bartizan_training.stages.triples import FromTriples
from bartizan_training.step import Place, Taken
from bartizan_training.teachers.cross_encoder import CrossEncoder, PairTable
from bartizan_training.teachers.score import triples_of


class CrossEncoding(FromTriples):
    """Its table in a recipe."""

    kind: Literal["cross_encoder"]
    """`cross_encoder`"""
    pooling: Pooling = "cls"
    """Which token's state, or what of all, the head scores."""

    gives: ClassVar[Kind] = "cross_encoder"

    def stage(self, taken: Taken, place: Place) -> "CrossEncoderStage":
        """The stage itself."""
        return CrossEncoderStage(self, taken, place)


class CrossEncoderStage(Stage):
    """Trains the backbone and a new head on both documents of each row."""

    def __init__(self, table: CrossEncoding, taken: Taken, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self._triples = triples_of(table.data, taken)
        self.fingerprint = self._triples.fingerprint
        self._order = Order(len(self._triples), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self.model = CrossEncoder.over(
            Tower.load(table.brought or taken["document"]),
            name=f"{place.name}-cross-encoder",
            pooling=table.pooling,
            query_tokens=table.query_tokens,
            document_tokens=table.document_tokens,
        )
        self._pairs = PairTable(
            self.model.tower.tokens, self._triples.queries, self._triples.documents, make=place.tokens
        )

    def batch(self, number: int) -> Batch:
        """This process's rows: all queries with their positives, then with their negatives."""
        accelerator, triples = self._place.accelerator, self._triples
        rows = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        documents = np.concatenate([triples.positive[rows], triples.negative[rows]])
        ids, lengths = self._pairs.pick(np.tile(triples.query[rows], 2), documents)
        return Batch((Packed.of(ids, self._place.budget(self._table)),), (lengths,))

    def embed(self, batch: Batch) -> Embedded:
        """Scores."""
        scores = self.model(batch.texts[0], batch.beside[0], self._table.precision)
        half = len(scores) // 2
        return {"positive": scores[:half], "negative": scores[half:]}

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The mean over this process's rows."""
        return rank_net(embedded["positive"], embedded["negative"])

    def finish(self) -> CrossEncoder:
        """The teacher."""
        return self.model
