"""What a stage gives the loop: batches by number, a loss, and towers at the end."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from bartizan_connector.space.spec import Role, TowerSpec, require_same_space
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.losses import info_nce
from bartizan_training.settings import InfoNce, Training

_ON_A_CPU, _ON_A_GPU = 384, 4096
"""A CPU would rather do more pieces than more padding: 32 short texts train in 0.8 of the time that one piece takes."""


@dataclass(frozen=True, slots=True)
class Towers:
    """A document tower and a query tower of one space; one object when they are tied."""

    document: Tower
    query: Tower

    @classmethod
    def load(cls, document: Path, query: Path) -> Self:
        """Read both; towers of two spaces are refused."""
        specs = TowerSpec.read(document), TowerSpec.read(query)
        require_same_space(
            f"the query tower {query} does not belong to the document tower {document}",
            expected=specs[0].space_id,
            came=specs[1].space_id,
            way_out="Give a query tower that was trained with this document tower, or leave it out.",
        )
        tower = Tower.load(document)
        return cls(tower, tower if specs[0] == specs[1] else Tower.load(query))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a stage made: the query tower, and the document tower unless it stayed frozen."""

    query: Tower
    document: Tower | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stage runs."""

    accelerator: Accelerator
    folder: Path
    name: str
    """For the towers."""
    number: int
    """The stage's own, counted from 1."""
    recipe_seed: int

    @property
    def seed(self) -> tuple[int, int]:
        """Differs from stage to stage."""
        return self.recipe_seed, self.number

    def budget(self, table: Training) -> int:
        """Tokens, padding included, that go through a tower at once: as the recipe says, or as suits the device."""
        return table.padded_tokens or (_ON_A_CPU if self.accelerator.device.type == "cpu" else _ON_A_GPU)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One process's part of a batch: texts to encode, and the tensors beside them that the loss needs."""

    texts: tuple[Packed, ...]
    beside: tuple[Tensor, ...]

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(packed.tokens for packed in self.texts)

    def to(self, device: torch.device) -> Self:
        """The same on that device."""
        return type(self)(
            tuple(packed.to(device) for packed in self.texts),
            tuple(tensor.to(device, non_blocking=True) for tensor in self.beside),
        )


class Stage(nn.Module, ABC):
    """Its parameters are what is trained. A batch is a pure function of its number, the seed and the rank."""

    batches_per_epoch: int
    fingerprint: str
    """Identity of the examples: a resumed run must see the same."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """This process's part of a batch, counted from 0 over all epochs."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """The loss; its mean over the processes is the loss of the whole batch."""

    @abstractmethod
    def finish(self) -> Trained:
        """The towers with their specs as they shall be saved."""


def encode(tower: Tower, packed: Packed, table: Training, *, raw: bool = False) -> Tensor:
    """Vectors [texts, D] in fp32, in the texts' order; `raw`: before normalisation."""
    run = tower.raw if raw else tower
    with arithmetic(packed, table):
        vectors = [run(ids, mask) for ids, mask in packed.pieces]
    return torch.cat(vectors).float()[packed.back]


def arithmetic(packed: Packed, table: Training) -> torch.autocast:
    """Within it, towers compute in the recipe's precision."""
    return torch.autocast(packed.back.device.type, dtype=torch.bfloat16, enabled=table.precision == "bf16")


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


def contrast(q_BD: Tensor, d_ND: Tensor, known_BN: Tensor, table: InfoNce) -> Tensor:
    """InfoNCE as the recipe sets it."""
    return info_nce(
        q_BD,
        d_ND,
        temperature=table.temperature,
        known_BN=known_BN if table.mask_known else None,
        margin=table.mask_margin,
        bidirectional=table.bidirectional,
    )


def capped(tower: Tower, table: Training) -> Tokens:
    """The tower's tokenizer as it is used in training: with the shorter of both limits."""
    roles = {
        role: spec.model_copy(update={"max_tokens": min(spec.max_tokens, table.max_tokens or spec.max_tokens)})
        for role, spec in tower.spec.roles.items()
    }
    return tower.tokens.serving(roles, tower.spec.special_tokens)


def playing_only(tower: Tower, role: Role, name: str) -> None:
    """Name the tower, and take the other role from it."""
    spec = tower.spec
    tower.spec = spec.model_copy(update={"name": name, "roles": {role: spec.role(role)}})
