"""The seam between recipe and loop: a step takes artefacts, checks itself before the run, and gives one artefact."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from accelerate import Accelerator
from pydantic import Field

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_training.artefacts import Artefacts, Kind
from bartizan_training.data.packing import Budget
from bartizan_training.data.token_table import StoredTokens, TokenTable, made_from, write_tokens
from bartizan_training.settings import Published, Table, Training
from bartizan_training.towers import PlannedTower

Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[a-z_]+)?$")]
"""`step`, or `step.part`: what a step before gives. The step `start` gives the towers that the recipe starts from."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Taken = Mapping[str, Path]
"""Where each artefact lies that a step takes, by the key that names it."""

_ON_A_CPU, _LEAST_ON_A_GPU, _MOST_ON_A_GPU = 384, 4096, 65536
"""A CPU would rather do more pieces than more padding: 32 short texts train in 0.8 of the time that one piece takes.
A GPU that trains a small model waits for its kernels to be launched: with few large pieces an H200 trained a MiniLM
shape 1.9 times as fast, a DistilBERT shape 1.1 times."""
_TOKENS_PER_GIB = 1024


class Step(Table, ABC):
    """The table of a step in a recipe; each kind of step adds its own keys."""

    kind: str
    """Which kind of step it is."""
    name: Name | None = None
    """What later steps call it; none: its kind, and a number when a step before is called so."""

    gives: ClassVar[Kind]
    takes: ClassVar[Mapping[str, Kind]]
    """Its keys that name artefacts, each with the kind of artefact."""
    brings: ClassVar[str | None] = None
    """Its key that may name a tower from outside the recipe's steps, or a published model."""

    @property
    def brought(self) -> Path | None:
        """The folder of the tower that it brings."""
        came: Path | Published | None = getattr(self, self.brings) if self.brings else None
        if isinstance(came, Published):
            raise WrongUse(f"{self.brings} = '{came.source}' is to be imported before the first step")
        return came

    @abstractmethod
    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Refuse towers that this step cannot do with; the towers that it will give, by role."""

    @abstractmethod
    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Read the data, and refuse what cannot be learned from."""

    def made_from(self) -> dict[str, Any]:
        """What its artefact depends on besides the artefacts that it takes. A key at its default is left out: one that
        is added later changes no key of what was made before."""
        changes_nothing = {"name", "log_every", "checkpoint_every", *self.takes}
        facts = self.model_dump(mode="json", exclude_defaults=True, exclude=changes_nothing)
        return facts | ({f"{self.brings}_id": TowerSpec.read(self.brought).tower_id} if self.brought else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step runs."""

    accelerator: Accelerator
    folder: Path
    """For its checkpoints."""
    artefacts: Artefacts
    name: str
    """For the towers."""
    number: int
    """The step's own, counted from 1."""
    recipe_seed: int
    sharded: bool = False
    """Whether the weights of what is trained are shared out over the processes."""

    @property
    def seed(self) -> tuple[int, int]:
        """Differs from step to step."""
        return self.recipe_seed, self.number

    def tokens(self, tokens: Tokens, role: Role, texts: Sequence[str]) -> TokenTable:
        """The token ids of the texts, in files of the run that all processes share."""
        artefact = self.artefacts.of(role, "tokens", made_from(tokens, role, texts))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and not artefact.exists:
            with artefact.written() as folder:
                write_tokens(folder, tokens, role, texts)
        self.accelerator.wait_for_everyone()
        return StoredTokens(artefact.folder)

    def budget(self, table: Training) -> Budget:
        """How much goes through a tower at once in training: as the recipe says, or as suits the device."""
        tokens = table.padded_tokens or suited(self.accelerator.device).tokens
        return Budget(tokens=tokens, texts=table.grad_cache, anew=table.grad_cache is not None)


class FromTowers(Step):
    """A step that takes a document tower and a query tower."""

    document: Reference | None = None
    """The document tower to start from: `step.document`; none: the newest."""
    query: Reference | None = None
    """The query tower to start from: `step.query`; none: the newest."""

    takes: ClassVar[Mapping[str, Kind]] = {"document": "towers", "query": "towers"}


class MakingStep(Step):
    """A step that trains nothing."""

    @abstractmethod
    def make(self, taken: Taken, place: Place, folder: Path) -> None:
        """Fill the artefact's folder; every process is in here, the main one writes what is not shared out."""


def suited(device: torch.device) -> Budget:
    """What suits the device where a recipe does not say."""
    if device.type != "cuda":
        return Budget(tokens=_ON_A_CPU)
    gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    return Budget(tokens=min(_MOST_ON_A_GPU, max(_LEAST_ON_A_GPU, round(gib) * _TOKENS_PER_GIB)))


@contextmanager
def under_key(key: str) -> Iterator[None]:
    """Name the key of a recipe that a refusal is about."""
    try:
        yield
    except WrongUse as error:
        raise WrongUse(f"{key}: {error}") from error
