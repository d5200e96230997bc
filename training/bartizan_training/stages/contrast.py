"""InfoNCE as a recipe sets it, over the batches of judged pairs of all processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from accelerate import Accelerator
from pydantic import model_validator
from torch import Tensor

from bartizan_connector.base.errors import WrongUse
from bartizan_training.artefacts import Kind
from bartizan_training.data.negatives import NEGATIVES_FILE
from bartizan_training.data.pair_tables import PairRecords, PairSource
from bartizan_training.data.pairs import Pairs, read_pairs
from bartizan_training.data.samplers import PairSampler, require_even
from bartizan_training.losses import cut, info_nce
from bartizan_training.settings import InfoNce, PairsTable, Training
from bartizan_training.stages.stage import TrainingStep
from bartizan_training.step import FromTowers, Reference, Taken, under_key
from bartizan_training.towers import PlannedTower


class OnJudged(FromTowers, TrainingStep):
    """The keys of every step that learns from judged pairs."""

    data: PairSource
    """Judged queries and their documents."""
    negatives: Reference | None = None
    """Hard negatives that a `mine` step before has found, by its name, in place of a file in `data`."""

    gives: ClassVar[Kind] = "towers"
    takes: ClassVar[Mapping[str, Kind]] = {**FromTowers.takes, "negatives": "negatives"}

    @property
    def judged(self) -> bool:
        """Whether somebody said what answers a query; weak pairs are made of documents alone."""
        return isinstance(self.data, PairRecords) or self.data.weak is None

    @model_validator(mode="after")
    def _one_source_of_negatives(self) -> Self:
        if self.negatives and isinstance(self.data, PairRecords):
            raise ValueError(f"negatives = '{self.negatives}' is for a BEIR folder; records bring their own, by column")
        if self.negatives and self.data.negatives:
            raise ValueError(
                f"negatives = '{self.negatives}' and data.negatives = '{self.data.negatives}': give one of them"
            )
        if self.negatives and not self.judged:
            raise ValueError(f"negatives = '{self.negatives}': weak pairs have in-batch negatives alone")
        return self

    @model_validator(mode="after")
    def _others_to_judge_by(self) -> Self:
        rule, learned = self.early_stop, self.data
        if (
            rule
            and isinstance(learned, PairsTable)
            and self.judged
            and (rule.data, rule.split) == (learned.path, learned.split)
        ):
            raise ValueError(f"early_stop.split = '{rule.split}' has the queries that are learned from: name another")
        return self


def contrast(q_BD: Tensor, d_ND: Tensor, known_BN: Tensor, table: InfoNce) -> Tensor:
    """InfoNCE as the recipe sets it, of whole vectors and of their first components."""

    def of(q_BD: Tensor, d_ND: Tensor) -> Tensor:
        return info_nce(
            q_BD,
            d_ND,
            temperature=table.temperature,
            known_BN=known_BN if table.mask_known else None,
            margin=table.mask_margin,
            bidirectional=table.bidirectional,
        )

    loss = of(q_BD, d_ND)
    for size, weight in table.sizes.items():
        loss = loss + weight * of(cut(q_BD, size), cut(d_ND, size))
    return loss


def require_sizes(table: InfoNce, tower: PlannedTower) -> None:
    """Refuse sizes that no vector of the tower can be cut to."""
    if not table.sizes:
        return
    if tower.spec.similarity != "cosine":
        raise WrongUse(
            f"loss.matryoshka is for towers that are compared by cosine, and '{tower.spec.name}' is {tower.spec.kind} "
            f"and compared by {tower.spec.similarity}: leave it out"
        )
    if max(table.sizes) >= tower.spec.dim:
        raise WrongUse(
            f"loss.matryoshka = {list(table.sizes)}: each must be smaller than the tower's {tower.spec.dim} dimensions"
        )


def pairs_with(data: PairSource, negatives: Path | None) -> PairSource:
    """The table with the hard negatives that a step before has mined."""
    return data if negatives is None else data.model_copy(update={"negatives": negatives})


def mined(taken: Taken) -> Path | None:
    """The file of hard negatives that the step takes, if any."""
    return taken["negatives"] / NEGATIVES_FILE if "negatives" in taken else None


def check_pairs(table: Training, data: PairSource, seed: tuple[int, int], processes: int) -> Pairs:
    """Refuse pairs that cannot be read, or that do not fill a batch."""
    if table.batch_size == 1 and not (data.negatives or getattr(table, "negatives", None)):
        raise WrongUse(
            "batch_size = 1 without negatives: a query's own document would have no other to be told from, and "
            "nothing would be learned; raise batch_size"
        )
    with under_key("data"):
        pairs = read_pairs(data)
    with under_key("batch_size"):
        PairSampler(pairs, data, table.batch_size, seed=seed)
        require_even(table.batch_size, processes)
    return pairs


def from_all(vectors: Tensor, accelerator: Accelerator) -> Tensor:
    """Every process's vectors in order of rank; gradients flow as if one process had encoded them all."""
    if accelerator.num_processes == 1:
        return vectors
    gathered: Tensor = _FromAll.apply(vectors, accelerator)
    return gathered


class _FromAll(torch.autograd.Function):
    """Each process computes the same loss from the gathered vectors, so that the gradient of its own rows is already
    here; it counts once for each process, because gradients of parameters are averaged over the processes."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, accelerator: Accelerator) -> Tensor:
        ctx.accelerator, ctx.rows = accelerator, len(vectors)
        gathered: Tensor = accelerator.gather(vectors)
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        start = ctx.accelerator.process_index * ctx.rows
        return gradient[start : start + ctx.rows] * ctx.accelerator.num_processes, None
