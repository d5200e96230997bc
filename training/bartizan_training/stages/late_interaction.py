"""Late-interaction stage: a teacher for whole batches learns the margins that a cross-encoder gave to pairs."""

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Packed
from bartizan_training.data.samplers import Order, share
from bartizan_training.margin_losses import margin_mse
from bartizan_training.settings import Positive
from bartizan_training.stages.stage import Batch, Embedded, Stage
from bartizan_training.stages.triples import FromScores, scored
from bartizan_training.step import Place, Taken
from bartizan_training.teachers.late_interaction import LateInteraction, max_sim_of_pairs


class LateInteracting(FromScores):
    """Its table in a recipe."""

    kind: Literal["late_interaction"]
    """`late_interaction`"""
    dim: Positive | None = None
    """A linear head brings each token's vector to this size; none: no head."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """In place of `dim`: a head of the same size that begins as so many times the identity; 0.15 suits MiniLM."""
    query_masks: Annotated[int, Field(ge=0)] = 8
    """Mask tokens behind each query, which look for what the query does not say."""

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if self.dim is not None and self.scale is not None:
            raise ValueError(f"dim = {self.dim} and scale = {self.scale}: give one of them, or none for no head")
        return self

    gives: ClassVar[Kind] = "late_interaction"

    def stage(self, taken: Taken, place: Place) -> "LateInteractionStage":
        """The stage itself."""
        return LateInteractionStage(self, taken, place)


class LateInteractionStage(Stage):
    """Trains the backbone, and the head if any, on both documents of each row."""

    def __init__(self, table: LateInteracting, taken: Taken, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self._triples, self._margins = scored(table, taken)
        self.fingerprint = self._triples.fingerprint
        self._order = Order(len(self._triples), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self.model = LateInteraction.over(
            Tower.load(table.brought or taken["document"]),
            name=f"{place.name}-late-interaction",
            dim=table.dim,
            scale=table.scale,
            query_tokens=table.query_tokens,
            document_tokens=table.document_tokens,
            query_masks=table.query_masks,
        )
        self._queries = self.model.queries(self._triples.queries, place.tokens)
        self._documents = self.model.documents(self._triples.documents, place.tokens)

    def batch(self, number: int) -> Batch:
        """This process's rows: queries, and their positives before their negatives."""
        accelerator, triples = self._place.accelerator, self._triples
        budget = self._place.budget(self._table)
        rows = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        queries = self._queries.pick(triples.query[rows])
        documents = self._documents.pick(np.concatenate([triples.positive[rows], triples.negative[rows]]))
        packed = (Packed.of(queries, budget), Packed.of(documents, budget))
        return Batch(packed, (torch.from_numpy(self._margins[rows]),))

    def embed(self, batch: Batch) -> Embedded:
        """Scores."""
        queries, documents = (self.model(packed, self._table.precision) for packed in batch.texts)
        half = len(queries[0])
        better, worse = ([part[:half] for part in documents], [part[half:] for part in documents])
        return {"positive": max_sim_of_pairs(*queries, *better), "negative": max_sim_of_pairs(*queries, *worse)}

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The mean over this process's rows."""
        return margin_mse(embedded["positive"], embedded["negative"], batch.beside[0])

    def finish(self) -> LateInteraction:
        """The teacher."""
        return self.model
