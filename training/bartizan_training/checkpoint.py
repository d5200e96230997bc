"""Checkpoints of a stage: each is whole and on disk before the one before it is deleted."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from bartizan_connector.base.aside import file_aside
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_training.artefacts import folder_by_all

_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the judgements of an early stop went so far."""

    best: float | None = None
    best_step: int = 0
    without_gain: int = 0
    """Judgements since the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a stage stood, and what must be as it was for it to go on."""

    step: int
    processes: int
    examples: str
    standing: Standing = Standing()
    sharded: bool = False


class Kept(Protocol):
    """What a checkpoint holds: all that accelerate prepared, or each process's part of a stage that is shared out."""

    def save_state(self, folder: str) -> Any:
        """Write it into the folder."""

    def load_state(self, folder: str) -> Any:
        """Take it from the folder."""


def save(accelerator: Accelerator, kept: Kept, folder: Path, state: State) -> None:
    """Save what is kept as `folder`/step-N, then drop the older ones."""
    whole = folder / f"step-{state.step:08d}"
    try:
        with folder_by_all(accelerator, whole) as aside:
            kept.save_state(str(aside))
            if accelerator.is_main_process:
                (aside / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        if accelerator.is_main_process:
            for old in folder.glob("step-*"):
                if old != whole:
                    shutil.rmtree(old)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
        raise Stop(
            f"cannot write the checkpoint {whole}: {error}; the one before it is whole: make room and run --resume"
        ) from error
    accelerator.wait_for_everyone()


def load(kept: Kept, folder: Path, now: State) -> State:
    """Bring back the last whole checkpoint; where the stage stood then, which is `now` when there is none."""
    whole = sorted(path for path in folder.glob("step-*") if path.suffix != ".part")
    if not whole:
        return now
    then = _read_state(whole[-1])
    if then.examples != now.examples:
        raise WrongUse(
            f"the data changed since {whole[-1]} was written; put it back, or train again into another --out"
        )
    if then.processes != now.processes:
        raise WrongUse(
            f"{whole[-1]} was written by {then.processes} processes and there are {now.processes} now; "
            "resume with as many, or train again into another --out"
        )
    if then.sharded != now.sharded:
        how = ("with --shard", "without") if then.sharded else ("without --shard", "with it")
        raise WrongUse(f"{whole[-1]} was written {how[0]}, and this run goes on {how[1]}; resume as it was begun")
    try:
        kept.load_state(str(whole[-1]))
    except (OSError, RuntimeError, CheckpointException, EOFError, UnpicklingError, SafetensorError) as error:
        raise _damaged(whole[-1], error) from error
    return then


def save_weights(accelerator: Accelerator, file: Path, stage: nn.Module) -> None:
    """Write what is trained of the stage, all or nothing."""
    if accelerator.is_main_process:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file_aside(file) as aside:
                torch.save(stage.state_dict(), aside)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise Stop(f"cannot write the best weights {file}: {error}; make room and run --resume") from error
    accelerator.wait_for_everyone()


def load_weights(file: Path, stage: nn.Module) -> None:
    """Bring back what `save_weights` wrote."""
    try:
        stage.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise _damaged(file, error) from error


def _read_state(checkpoint: Path) -> State:
    try:
        facts = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        standing = Standing(**facts.pop("standing", {}))
        return State(**facts, standing=standing)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(checkpoint, error) from error


def _damaged(checkpoint: Path, error: BaseException) -> Stop:
    return Stop(f"the checkpoint {checkpoint} is damaged: {error}; train again into another --out")
