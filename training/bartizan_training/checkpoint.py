"""Checkpoints of a stage: each is whole and on disk before the one before it is deleted."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_training.artefacts import folder_by_all

_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a stage stood, and what must be as it was for it to go on."""

    step: int
    processes: int
    examples: str


def save(accelerator: Accelerator, folder: Path, state: State) -> None:
    """Save what `accelerator` prepared as `folder`/step-N, then drop the older ones."""
    whole = folder / f"step-{state.step:08d}"
    try:
        with folder_by_all(accelerator, whole) as aside:
            accelerator.save_state(str(aside))
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


def load(accelerator: Accelerator, folder: Path, now: State) -> int:
    """Bring back the last whole checkpoint; the step it was made at, 0 when there is none."""
    whole = sorted(path for path in folder.glob("step-*") if path.suffix != ".part")
    if not whole:
        return 0
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
    try:
        accelerator.load_state(str(whole[-1]))
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise _damaged(whole[-1], error) from error
    return then.step


def _read_state(checkpoint: Path) -> State:
    try:
        return State(**json.loads((checkpoint / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(checkpoint, error) from error


def _damaged(checkpoint: Path, error: Exception) -> Stop:
    return Stop(f"the checkpoint {checkpoint} is damaged: {error}; train again into another --out")
