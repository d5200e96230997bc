"""CSPLADE's contrastive stage: sparse towers learn from judged pairs, and FLOPS keeps their vectors sparse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_training import collapse
from bartizan_training.settings import Flops, InfoNce
from bartizan_training.sparse_losses import flops, ramp
from bartizan_training.stages.contrast import contrast, from_all, mined
from bartizan_training.stages.contrastive import ContrastiveStage, OnPairs
from bartizan_training.stages.stage import Batch, Embedded
from bartizan_training.step import Place, Taken
from bartizan_training.towers import PlannedTower, Towers, TrainedTowers

_READS: Mapping[str, Mapping[str, Any]] = {
    "causal": {},
    "echo": {"echo": True},
    "bidirectional": {"attention": "bidirectional"},
}


class Splade(OnPairs):
    """Its table in a recipe."""

    kind: Literal["splade"]
    """`splade`"""
    variant: Literal["causal", "echo", "bidirectional"] = "causal"
    """What a token of a decoder sees: what stands before it, all of a first copy of the text, or all of the text."""
    loss: InfoNce = InfoNce(temperature=1.0)
    """InfoNCE of dot products with in-batch negatives, over all processes."""
    flops: Flops = Flops()
    """What keeps the vectors sparse."""
    top_terms: Annotated[int, Field(ge=1)] | None = None
    """Terms that each vector of the trained towers keeps, the heaviest; training has all; none: all."""

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Sparse towers of a new space."""
        for tower in towers.values():
            _require_sparse(tower.spec)
            if self.variant == "echo" and tower.spec.attention == "bidirectional":
                raise WrongUse("variant = 'echo': the tower's tokens see all of a text already; leave variant out")
        return super().plan(name, towers)

    def stage(self, taken: Taken, place: Place) -> "SpladeStage":
        """The stage itself."""
        return SpladeStage(self, Towers.load(taken["document"], taken["query"]), place, mined(taken))


class SpladeStage(ContrastiveStage):
    """The contrastive stage with FLOPS of queries and of documents, each over the batches of all processes: the weight
    is the same for one process and for many."""

    def __init__(self, table: Splade, start: Towers, place: Place, negatives: Path | None = None) -> None:
        for tower in {id(tower): tower for tower in (start.document, start.query)}.values():
            spec = tower.spec
            tower.spec = spec.model_copy(update={"top_terms": None, **_READS[table.variant]})
        super().__init__(table, start, place, negatives)
        self._splade = table
        self._ramp = round(table.flops.ramp * table.length(self.batches_per_epoch))

    def batch(self, number: int) -> Batch:
        """With the share of the FLOPS weights at the batch's optimiser step."""
        batch = super().batch(number)
        share = ramp(number // self._splade.accumulate, self._ramp)
        return Batch(batch.texts, (*batch.beside, torch.tensor(share)))

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The loss of the whole batch, the same in each process."""
        known_BN, share = batch.beside
        parts = (embedded[name] for name in ("query", "own", "hard"))
        q_BV, own_BV, hard_HV = (from_all(part, self._place.accelerator) for part in parts)
        d_NV, weights = torch.cat([own_BV, hard_HV]), self._splade.flops
        rank = contrast(q_BV, d_NV, known_BN, self._splade.loss)
        of_queries, of_documents = flops(q_BV), flops(d_NV)
        if self.noting:
            first = (q_BV.detach() @ d_NV.detach().T).argmax(dim=1) == torch.arange(len(q_BV), device=q_BV.device)
            self.notes = {
                "rank_loss": rank.detach(),
                "query_flops": of_queries.detach(),
                "document_flops": of_documents.detach(),
                "flops_share": share,
                "own_first": first.float().mean(),
                **collapse.figures(q_BV.detach(), "query"),
                **collapse.figures(d_NV.detach(), "document"),
            }
        return rank + share * (weights.query * of_queries + weights.document * of_documents)

    def alarms(self, record: Mapping[str, Any]) -> Mapping[str, str]:
        """Collapsed vectors."""
        return collapse.alarms(record)

    def finish(self) -> TrainedTowers:
        """As the contrastive stage; the towers keep as many terms as the table says."""
        trained = super().finish()
        for tower in self._towers:
            tower.spec = tower.spec.model_copy(update={"top_terms": self._splade.top_terms})
        if not self._splade.tied:
            query, document = self._towers[0], self._towers[-1]
            query.spec = query.spec.model_copy(update={"space": None}).aligned_to(document.spec)
        return trained


def _require_sparse(spec: TowerSpec) -> None:
    if spec.kind != "sparse":
        raise WrongUse(f"tower '{spec.name}' is dense; import it with kind = 'sparse' for its language model's head")
