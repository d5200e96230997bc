"""Refinement: the distilled query tower learns from judged pairs, against document vectors that stay as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.samplers import PairSampler, share
from bartizan_training.embedding import capped, encode
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.settings import InfoNce
from bartizan_training.stages.contrast import (
    OnJudged,
    check_pairs,
    contrast,
    from_all,
    mined,
    pairs_with,
    require_sizes,
)
from bartizan_training.stages.stage import Batch, Embedded, Stage, playing_only
from bartizan_training.step import Place, Taken
from bartizan_training.towers import PlannedTower, Towers, TrainedTowers


class Refine(OnJudged):
    """Its table in a recipe."""

    kind: Literal["refine"]
    """`refine`"""
    loss: InfoNce = InfoNce()
    """InfoNCE of the query tower against the frozen document vectors."""

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """The document tower as it was, and a query tower of its space."""
        document = towers["document"]
        document.spec.role("document")
        require_sizes(self.loss, document)
        return {
            "document": document,
            "query": towers["query"].trained_in(name, space=document.space, roles=("query",)),
        }

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Pairs that fill a batch."""
        check_pairs(self, self.data, seed, processes)

    def stage(self, taken: Taken, place: Place) -> "RefineStage":
        """The stage itself."""
        start = Towers.load(taken["document"], taken["query"])
        return RefineStage(self, start, place, taken["document"], mined(taken))


class RefineStage(Stage):
    """Trains the query tower alone; an index of the document tower stays valid."""

    def __init__(
        self, table: Refine, start: Towers, place: Place, document: Path, negatives: Path | None = None
    ) -> None:
        super().__init__()
        self._table, self._place, self._document = table, place, document
        self._space = start.document.spec
        data = pairs_with(table.data, negatives)
        pairs = read_pairs(data)
        self.fingerprint = pairs.fingerprint
        self._sampler = PairSampler(pairs, data, table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._sampler.batches_per_epoch
        frozen = Frozen(tower=start.document, role="document", texts=pairs.documents, precision=table.precision)
        self._documents = freeze(frozen, place)
        self._queries = place.tokens(capped(start.query, table.max_tokens), "query", pairs.queries)
        self.query = start.query

    def batch(self, number: int) -> Batch:
        """This process's queries, and the vectors of all documents of the batch."""
        accelerator = self._place.accelerator
        drawn = self._sampler.batch(number)
        mine = share(drawn.queries, accelerator.process_index, accelerator.num_processes)
        packed = Packed.of(self._queries.pick(mine), self._place.budget(self._table))
        return Batch((packed,), (self._documents.pick(drawn.documents), torch.from_numpy(drawn.known)))

    def embed(self, batch: Batch) -> Embedded:
        """Queries."""
        return {"query": encode(self.query, batch.texts[0], precision=self._table.precision)}

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        d_ND, known_BN = batch.beside
        q_BD = from_all(embedded["query"], self._place.accelerator)
        return contrast(q_BD, d_ND, known_BN, self._table.loss)

    def towers_now(self) -> tuple[Tower, Path]:
        """The query tower, and where the document tower lies."""
        return self.query, self._document

    def finish(self) -> TrainedTowers:
        """The query tower stays in the document tower's space."""
        playing_only(self.query, "query", f"{self._place.name}-query")
        self.query.spec = self.query.spec.aligned_to(self._space)
        return TrainedTowers(self.query, self._document)
