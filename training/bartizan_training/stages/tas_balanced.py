"""TAS-Balanced: one tower for both roles learns the margins of two teachers, in batches of one topic each.

Hofstätter et al. 2021 (arXiv 2104.06967). No label is in the loss: a cross-encoder, whose scores are computed once,
says by how much a query's own positive is above its own negative; a late-interaction model, frozen, says on every batch
how far it is above the documents of the batch's other queries.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Budget, Packed, TokenIds
from bartizan_training.data.ragged import Indices
from bartizan_training.data.samplers import require_even, share
from bartizan_training.data.topics import MarginBins, TopicSampler
from bartizan_training.data.triple_rows import Triples
from bartizan_training.data.triples import read_triples
from bartizan_training.embedding import capped, encode
from bartizan_training.margin_losses import BatchScores, in_batch_margin_mse, margin_mse
from bartizan_training.mine.cluster import read_clusters
from bartizan_training.settings import Positive, Table, Weight
from bartizan_training.stages.contrast import from_all
from bartizan_training.stages.stage import Batch, Embedded, Stage
from bartizan_training.stages.triples import FromScores, scored
from bartizan_training.step import Place, Reference, Taken, under_key
from bartizan_training.teachers.late_interaction import LateInteraction, max_sim
from bartizan_training.towers import PlannedTower, TrainedTowers, redesigned


class DualSupervision(Table):
    """Squared differences between the tower's margins and the teachers', as means."""

    w_pair: Weight = 1.0
    """Weight of each query's own two documents, by the scores of the pairwise teacher."""
    w_in_batch: Weight = 0.75
    """Weight of its positive against all documents of the batch's other queries, by the in-batch teacher."""
    scale: Weight = 1.0
    """The tower's scores are multiplied by it; for a cosine tower, whose scores cannot reach a teacher's margins."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.w_pair == self.w_in_batch == 0 or self.scale == 0:
            raise ValueError("w_pair and w_in_batch are both 0, or scale is, so that nothing would be learned")
        return self


class TasBalanced(FromScores):
    """Its table in a recipe."""

    kind: Literal["tas_balanced"]
    """`tas_balanced`"""
    clusters: Reference | None = None
    """The topics: a `cluster` step before, by its name; none: batches are drawn from all queries."""
    in_batch_teacher: Reference | None = None
    """A `late_interaction` step before, by its name; needed unless `w_in_batch` is 0."""
    margins: Literal["bins", "random"] = "bins"
    """A query's row is drawn from a bin of its margins that was drawn before, or from all of its rows."""
    bins: Positive = 10
    """Bins of equal width between a query's least and greatest margin."""
    rows_at_least: Positive = 2
    """Queries with fewer rows are left out."""
    pooling: Pooling = "cls"
    """The tower's."""
    similarity: Literal["dot", "cosine"] = "dot"
    """`dot`: vectors are not normalised, and their products can be as large as a teacher's scores."""
    loss: DualSupervision = DualSupervision()
    """How far the tower is from its teachers."""

    gives: ClassVar[Kind] = "towers"
    takes: ClassVar[Mapping[str, Kind]] = {
        **FromScores.takes,
        "clusters": "clusters",
        "in_batch_teacher": "late_interaction",
    }

    @model_validator(mode="after")
    def _teacher_for_its_weight(self) -> Self:
        if (self.in_batch_teacher is None) != (self.loss.w_in_batch == 0):
            raise ValueError(
                f"in_batch_teacher = {self.in_batch_teacher!r} and w_in_batch = {self.loss.w_in_batch}: name a step of "
                "kind 'late_interaction', or set w_in_batch = 0, not both"
            )
        return self

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """A tower of a new space for both roles."""
        tower = self.origin(towers).trained_in(name, space=name, roles=("document", "query"))
        return {"document": tower, "query": tower}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """As many queries with rows to draw from as fill a batch."""
        with under_key("data"):
            triples = read_triples(self.data)
        with under_key("batch_size"):
            TopicSampler(self._bins(triples, None), None, self.batch_size, seed=seed)
            require_even(self.batch_size, processes)
        self.check_triples(triples)

    def sampler(self, triples: Triples, margins: np.ndarray, clusters: Indices | None, place: Place) -> TopicSampler:
        """Which rows make up a batch."""
        used = margins if self.margins == "bins" else None
        return TopicSampler(self._bins(triples, used), clusters, self.batch_size, seed=place.seed)

    def stage(self, taken: Taken, place: Place) -> "TasBalancedStage":
        """The stage itself."""
        return TasBalancedStage(self, taken, place)

    def _bins(self, triples: Triples, margins: np.ndarray | None) -> MarginBins:
        return MarginBins.of(triples.query, margins, bins=self.bins, at_least=self.rows_at_least)


class TasBalancedStage(Stage):
    """Trains one tower for both roles; it founds a new space."""

    def __init__(self, table: TasBalanced, taken: Taken, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        triples, self._margins = scored(table, taken)
        self._triples = triples
        self.fingerprint = triples.fingerprint
        clusters = read_clusters(taken["clusters"], triples.queries) if "clusters" in taken else None
        self._sampler = table.sampler(triples, self._margins, clusters, place)
        self.batches_per_epoch = self._sampler.batches_per_epoch
        start = Tower.load(table.brought or taken["document"])
        self.tower = redesigned(
            start,
            start.head,
            name=place.name,
            pooling=table.pooling,
            similarity=table.similarity,
            lengths={"query": table.query_tokens, "document": table.document_tokens},
            together=max(table.query_tokens, table.document_tokens),
        )
        tokens = capped(self.tower, table.max_tokens)
        self._queries = place.tokens(tokens, "query", triples.queries)
        self._documents = place.tokens(tokens, "document", triples.documents)
        self._teacher = _InBatch.read(taken, triples, place) if table.loss.w_in_batch else None

    def batch(self, number: int) -> Batch:
        """This process's rows: queries, positives and negatives together; the same for the teacher; the margins of the
        whole batch."""
        accelerator, budget, triples = self._place.accelerator, self._place.budget(self._table), self._triples
        rows = self._sampler.batch(number)
        mine = share(rows, accelerator.process_index, accelerator.num_processes)
        parts = (self._documents.pick(triples.positive[mine]), self._documents.pick(triples.negative[mine]))
        texts = [Packed.of(TokenIds.joined([self._queries.pick(triples.query[mine]), *parts]), budget)]
        if self._teacher:
            texts += self._teacher.texts(triples, mine, budget)
        return Batch(tuple(texts), (torch.from_numpy(self._margins[rows]),))

    def embed(self, batch: Batch) -> Embedded:
        """Queries, their positives, their negatives."""
        vectors = encode(self.tower, batch.texts[0], precision=self._table.precision)
        return dict(zip(("query", "positive", "negative"), vectors.chunk(3), strict=True))

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        how, accelerator = self._table.loss, self._place.accelerator
        q_BD, positive_BD, negative_BD = (
            from_all(embedded[part], accelerator) for part in ("query", "positive", "negative")
        )
        student = BatchScores.of(q_BD, positive_BD, negative_BD).scaled(how.scale)
        loss = how.w_pair * margin_mse(student.own_positive_B, student.own_negative_B, batch.beside[0])
        if self._teacher:
            teacher = self._teacher.scores(batch.texts[1:], self._table.precision)
            loss = loss + how.w_in_batch * in_batch_margin_mse(student, teacher)
        return loss

    def towers_now(self) -> tuple[Tower, Tower]:
        """One tower under both roles."""
        return self.tower, self.tower

    def finish(self) -> TrainedTowers:
        """One tower under both roles."""
        return TrainedTowers(self.tower, self.tower)


class _InBatch:
    """The frozen teacher of whole batches. It is no part of the stage: nothing of it is trained, moved or saved."""

    def __init__(self, model: LateInteraction, triples: Triples, place: Place) -> None:
        self._model, self._place = model, place
        self._queries = model.queries(triples.queries, place.tokens)
        self._documents = model.documents(triples.documents, place.tokens)

    @classmethod
    def read(cls, taken: Taken, triples: Triples, place: Place) -> Self:
        model = LateInteraction.load(taken["in_batch_teacher"]).to(place.accelerator.device).eval()
        return cls(model.requires_grad_(False), triples, place)

    def texts(self, triples: Triples, rows: Indices, budget: Budget) -> list[Packed]:
        """This process's queries, and their positives before their negatives."""
        documents = np.concatenate([triples.positive[rows], triples.negative[rows]])
        picked = (self._queries.pick(triples.query[rows]), self._documents.pick(documents))
        return [Packed.of(ids, budget) for ids in picked]

    @torch.no_grad()
    def scores(self, texts: tuple[Packed, ...], precision: str) -> BatchScores:
        """Of the whole batch: each process encodes its part once, and compares everything with everything."""
        (q_BLD, q_mask_BL), (d_NMD, d_mask_NM) = (self._model(packed, precision) for packed in texts)
        half = len(q_BLD)
        queries = self._of_all(q_BLD), self._of_all(q_mask_BL)
        found = [
            max_sim(*queries, self._of_all(d_NMD[part]), self._of_all(d_mask_NM[part]))
            for part in (slice(half), slice(half, None))
        ]
        return BatchScores(positive_BB=found[0], negative_BB=found[1])

    def _of_all(self, part: Tensor) -> Tensor:
        """The rows of all processes in order of rank, padded to the longest."""
        accelerator = self._place.accelerator
        if accelerator.num_processes == 1:
            return part
        gathered: Tensor = accelerator.gather(accelerator.pad_across_processes(part, dim=1).contiguous())
        return gathered
