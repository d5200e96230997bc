"""Contrastive stage: two towers from one checkpoint learn that a query lies nearest to its own document."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed, TokenIds
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.samplers import PairSampler, share
from bartizan_training.embedding import capped, encode
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


class OnPairs(OnJudged):
    """The keys of every step that trains both towers on judged pairs."""

    tied: bool = True
    """Whether queries and documents share one tower, or each train a copy of it."""
    loss: InfoNce = InfoNce()
    """InfoNCE with in-batch negatives, over all processes."""

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Towers of a new space."""
        document, query = towers["document"], towers["query"]
        require_sizes(self.loss, document)
        if self.tied and query.tower != document.tower:
            raise _not_one(query.spec.name, document.spec.name)
        if self.tied:
            tower = document.trained_in(name, space=name, roles=("document", "query"))
            return {"document": tower, "query": tower}
        return {
            "document": document.trained_in(name, space=name, roles=("document",)),
            "query": query.trained_in(name, space=name, roles=("query",)),
        }

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Pairs that fill a batch."""
        check_pairs(self, self.data, seed, processes)


class Contrastive(OnPairs):
    """Its table in a recipe."""

    kind: Literal["contrastive"]
    """`contrastive`"""

    def stage(self, taken: Taken, place: Place) -> "ContrastiveStage":
        """The stage itself."""
        return ContrastiveStage(self, Towers.load(taken["document"], taken["query"]), place, mined(taken))


class ContrastiveStage(Stage):
    """Trains both towers; the document tower founds a new space and the query tower joins it."""

    def __init__(self, table: OnPairs, start: Towers, place: Place, negatives: Path | None = None) -> None:
        super().__init__()
        self._table, self._place = table, place
        data = pairs_with(table.data, negatives)
        pairs = read_pairs(data)
        self.fingerprint = pairs.fingerprint
        self._sampler = PairSampler(pairs, data, table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._sampler.batches_per_epoch
        self._queries = place.tokens(capped(start.query, table.max_tokens), "query", pairs.queries)
        self._documents = place.tokens(capped(start.document, table.max_tokens), "document", pairs.documents)
        self._towers = (_tied(start),) if table.tied else (_apart(start), start.document)
        self.towers = nn.ModuleList(self._towers)

    def batch(self, number: int) -> Batch:
        """Queries, then documents; packed together for a tied tower, so that both go through it at once."""
        accelerator, budget = self._place.accelerator, self._place.budget(self._table)
        drawn = self._sampler.batch(number)
        rank, processes = accelerator.process_index, accelerator.num_processes
        queries = self._queries.pick(share(drawn.queries, rank, processes))
        own, hard = drawn.documents[: len(drawn.queries)], drawn.documents[len(drawn.queries) :]
        documents = TokenIds.joined([self._documents.pick(share(part, rank, processes)) for part in (own, hard)])
        groups = [TokenIds.joined([queries, documents])] if self._table.tied else [queries, documents]
        return Batch(tuple(Packed.of(group, budget) for group in groups), (torch.from_numpy(drawn.known),))

    def embed(self, batch: Batch) -> Embedded:
        """Queries, their own documents, and hard negatives."""
        known_BN = batch.beside[0]
        pairs = zip(self._towers, batch.texts, strict=True)
        vectors = torch.cat([encode(tower, packed, precision=self._table.precision) for tower, packed in pairs])
        size = len(known_BN) // self._place.accelerator.num_processes
        return {"query": vectors[:size], "own": vectors[size : 2 * size], "hard": vectors[2 * size :]}

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        (known_BN,) = batch.beside
        parts = (embedded[name] for name in ("query", "own", "hard"))
        q_BD, own_BD, hard_HD = (from_all(part, self._place.accelerator) for part in parts)
        return contrast(q_BD, torch.cat([own_BD, hard_HD]), known_BN, self._table.loss)

    def towers_now(self) -> tuple[Tower, Tower]:
        """Both towers."""
        return self._towers[0], self._towers[-1]

    def finish(self) -> TrainedTowers:
        """Tied towers play both roles; apart, each keeps the one it was trained for."""
        query, document = self._towers[0], self._towers[-1]
        if self._table.tied:
            document.spec = document.spec.model_copy(update={"name": self._place.name})
        else:
            playing_only(document, "document", self._place.name)
            playing_only(query, "query", f"{self._place.name}-query")
            query.spec = query.spec.aligned_to(document.spec)
        return TrainedTowers(query, document)


def _tied(start: Towers) -> Tower:
    if start.query is not start.document:
        raise _not_one(start.query.spec.name, start.document.spec.name)
    return start.document


def _not_one(query: str, document: str) -> WrongUse:
    return WrongUse(
        f"tied = true needs one tower to start from, but the query tower '{query}' is not the document tower "
        f"'{document}'; set tied = false"
    )


def _apart(start: Towers) -> Tower:
    return copy.deepcopy(start.query) if start.query is start.document else start.query
