"""Refinement: the distilled query tower learns from judged pairs, against document vectors that stay as they are."""

from typing import Literal

import torch
from torch import Tensor

from bartizan_training.data.packing import Packed, TokenTable
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.samplers import PairSampler, share
from bartizan_training.settings import InfoNce, PairsTable, Training
from bartizan_training.stages.frozen import Frozen, freeze
from bartizan_training.stages.stage import (
    Batch,
    Place,
    Stage,
    Towers,
    Trained,
    capped,
    contrast,
    encode,
    from_all,
    playing_only,
)


class Refine(Training):
    """Its table in a recipe."""

    kind: Literal["refine"]
    """`refine`"""
    data: PairsTable
    """Judged queries and their documents."""
    loss: InfoNce = InfoNce()
    """InfoNCE of the query tower against the frozen document vectors."""

    def build(self, start: Towers, place: Place) -> "RefineStage":
        """The stage itself."""
        return RefineStage(self, start, place)


class RefineStage(Stage):
    """Trains the query tower alone; an index of the document tower stays valid."""

    def __init__(self, table: Refine, start: Towers, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self._space = start.document.spec
        pairs = read_pairs(table.data)
        self.fingerprint = pairs.fingerprint
        self._sampler = PairSampler(pairs, table.data, table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._sampler.batches_per_epoch
        self._documents = freeze(Frozen(tower=start.document, role="document", texts=pairs.documents), table, place)
        self._queries = TokenTable(capped(start.query, table), "query", pairs.queries)
        self.query = start.query

    def batch(self, number: int) -> Batch:
        """This process's queries, and the vectors of all documents of the batch."""
        accelerator = self._place.accelerator
        drawn = self._sampler.batch(number)
        mine = share(drawn.queries, accelerator.process_index, accelerator.num_processes)
        packed = Packed.of(self._queries.pick(mine), self._place.budget(self._table))
        return Batch((packed,), (self._documents.pick(drawn.documents), torch.from_numpy(drawn.known)))

    def forward(self, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        d_ND, known_BN = batch.beside
        q_BD = from_all(encode(self.query, batch.texts[0], self._table), self._place.accelerator)
        return contrast(q_BD, d_ND, known_BN, self._table.loss)

    def finish(self) -> Trained:
        """The query tower stays in the document tower's space."""
        playing_only(self.query, "query", f"{self._place.name}-query")
        self.query.spec = self.query.spec.aligned_to(self._space)
        return Trained(query=self.query)
