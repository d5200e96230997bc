"""Contrastive stage: two towers from one checkpoint learn that a query lies nearest to its own document."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed, TokenTable
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.samplers import PairSampler, share
from bartizan_training.settings import InfoNce, PairsTable, Training
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


class Contrastive(Training):
    """Its table in a recipe."""

    kind: Literal["contrastive"]
    """`contrastive`"""
    tied: bool = True
    """Whether queries and documents share one tower, or each train a copy of it."""
    data: PairsTable
    """Judged queries and their documents."""
    loss: InfoNce = InfoNce()
    """InfoNCE with in-batch negatives, over all processes."""

    def build(self, start: Towers, place: Place) -> "ContrastiveStage":
        """The stage itself."""
        return ContrastiveStage(self, start, place)


class ContrastiveStage(Stage):
    """Trains both towers; the document tower founds a new space and the query tower joins it."""

    def __init__(self, table: Contrastive, start: Towers, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        pairs = read_pairs(table.data)
        self.fingerprint = pairs.fingerprint
        self._sampler = PairSampler(pairs, table.data, table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._sampler.batches_per_epoch
        self._queries = TokenTable(capped(start.query, table), "query", pairs.queries)
        self._documents = TokenTable(capped(start.document, table), "document", pairs.documents)
        self._towers = (_tied(start),) if table.tied else (_apart(start), start.document)
        self.towers = nn.ModuleList(self._towers)

    def batch(self, number: int) -> Batch:
        """Queries, then documents; packed together for a tied tower, so that both go through it at once."""
        accelerator, budget = self._place.accelerator, self._place.budget(self._table)
        drawn = self._sampler.batch(number)
        rank, processes = accelerator.process_index, accelerator.num_processes
        queries = self._queries.pick(share(drawn.queries, rank, processes))
        own, hard = drawn.documents[: len(drawn.queries)], drawn.documents[len(drawn.queries) :]
        documents = [text for part in (own, hard) for text in self._documents.pick(share(part, rank, processes))]
        groups = [queries + documents] if self._table.tied else [queries, documents]
        return Batch(tuple(Packed.of(group, budget) for group in groups), (torch.from_numpy(drawn.known),))

    def forward(self, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        (known_BN,) = batch.beside
        pairs = zip(self._towers, batch.texts, strict=True)
        vectors = torch.cat([encode(tower, packed, self._table) for tower, packed in pairs])
        size = len(known_BN) // self._place.accelerator.num_processes
        parts = vectors[:size], vectors[size : 2 * size], vectors[2 * size :]
        q_BD, own_BD, hard_HD = (from_all(part, self._place.accelerator) for part in parts)
        return contrast(q_BD, torch.cat([own_BD, hard_HD]), known_BN, self._table.loss)

    def finish(self) -> Trained:
        """Tied towers play both roles; apart, each keeps the one it was trained for."""
        query, document = self._towers[0], self._towers[-1]
        if self._table.tied:
            document.spec = document.spec.model_copy(update={"name": self._place.name})
        else:
            playing_only(document, "document", self._place.name)
            playing_only(query, "query", f"{self._place.name}-query")
            query.spec = query.spec.aligned_to(document.spec)
        return Trained(query=query, document=document)


def _tied(start: Towers) -> Tower:
    if start.query is not start.document:
        raise WrongUse(
            f"tied = true needs one tower to start from, but the query tower '{start.query.spec.name}' is not the "
            f"document tower '{start.document.spec.name}'; set tied = false"
        )
    return start.document


def _apart(start: Towers) -> Tower:
    return copy.deepcopy(start.query) if start.query is start.document else start.query
