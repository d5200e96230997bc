"""What a stage gives the loop: batches by number, embeddings of a batch, their loss, and towers at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from bartizan_connector.space.spec import Role
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.settings import Training
from bartizan_training.step import Place, Step, Taken

Embedded = Mapping[str, Tensor]
"""What came out of the towers for one process's part of a batch, by name; the first dimension counts texts."""


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

    def pinned(self) -> Self:
        """The same in memory that a GPU can copy from while the program goes on."""
        return type(self)(
            tuple(packed.pinned() for packed in self.texts), tuple(tensor.pin_memory() for tensor in self.beside)
        )


class Saved(Protocol):
    """What a stage made."""

    def save(self, folder: Path) -> None:
        """Write it into the artefact's folder."""


class Stage(nn.Module, ABC):
    """Its parameters are what is trained.

    A batch is a pure function of its number, the seed and the rank; it is made in another thread. All that needs the
    towers is in `embed`, and the loss is a function of what `embed` gives: so gradients can be cached between the two.
    """

    batches_per_epoch: int
    fingerprint: str
    """Identity of the examples: a resumed run must see the same."""
    noting: bool = False
    """Whether the loop asks for notes on this step: a line of the metrics is due."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Tensor] = {}
        """Figures of the latest step that was noted, for its line of the metrics."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """This process's part of a batch, counted from 0 over all epochs."""

    @abstractmethod
    def embed(self, batch: Batch) -> Embedded:
        """This process's embeddings."""

    @abstractmethod
    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The loss; its mean over the processes is the loss of the whole batch."""

    @abstractmethod
    def finish(self) -> Saved:
        """What was trained, as it shall be saved."""

    def towers_now(self) -> tuple[Tower, Tower | Path] | None:
        """The query and the document tower as they are at this step, or where a frozen one lies; none: it has none."""
        return None

    def alarms(self, record: Mapping[str, Any]) -> Mapping[str, str]:
        """What a person should hear of a line of the metrics, by the figure that says so."""
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Embed, then compare."""
        return self.loss(self.embed(batch), batch)


class TrainingStep(Step, Training):
    """A step that trains: its table makes a stage."""

    @model_validator(mode="after")
    def _towers_to_judge(self) -> Self:
        if self.early_stop and self.gives != "towers":
            raise ValueError(f"early_stop judges towers, and a step of kind '{self.kind}' gives none: leave it out")
        return self

    @abstractmethod
    def stage(self, taken: Taken, place: Place) -> Stage:
        """The stage itself, ready to be trained."""


def playing_only(tower: Tower, role: Role, name: str) -> None:
    """Name the tower, and take the other role from it."""
    spec = tower.spec
    tower.spec = spec.model_copy(update={"name": name, "roles": {role: spec.role(role)}})
