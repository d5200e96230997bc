"""metrics.jsonl: one line every few steps; a loss that is no number stops the run before it reaches a checkpoint."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import Stop
from bartizan_training.board import Board


class Metrics:
    """Collects on the device what a step gives, and looks at it only when a line is due."""

    def __init__(self, path: Path, accelerator: Accelerator, *, stage: int, kind: str) -> None:
        self._path, self._accelerator, self._stage, self._kind = path, accelerator, stage, kind
        self._board = Board(path.parent, stage=stage, kind=kind)
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._notes: Mapping[str, Tensor] = {}
        self._tokens = 0
        self._since = time.monotonic()

    def forget_after(self, step: int) -> None:
        """Drop the lines of this stage that a killed run wrote after its last checkpoint."""
        if not self._accelerator.is_main_process:
            return
        self._board.begin_after(step)
        if not self._path.exists():
            return
        *lines, cut_off = self._path.read_text(encoding="utf-8").split("\n")  # a line that was cut off has no end
        records = [(line, json.loads(line)) for line in lines]
        kept = [line for line, record in records if (record["stage"], record["step"]) <= (self._stage, step)]
        if len(kept) < len(lines) or cut_off:
            write_aside(self._path, "".join(f"{line}\n" for line in kept))

    def add(self, loss: Tensor, norm: Tensor, tokens: int, notes: Mapping[str, Tensor]) -> None:
        """One step's figures; of notes the latest count."""
        self._notes = notes
        self._losses.append(loss.detach())
        self._norms.append(norm.detach())
        self._tokens += tokens

    def write(
        self, step: int, learning_rate: float, judge: Callable[[int], Mapping[str, float]] | None = None
    ) -> Mapping[str, Any]:
        """Write a line about the steps since the last one, the latest of which is `step`; what it says. `judge` adds
        what it finds, once the losses are known to be numbers."""
        if not self._losses:
            return {}
        here = torch.stack([torch.stack(self._losses), torch.stack(self._norms)]).float()
        losses, norms = self._accelerator.reduce(here, "mean").tolist()
        for at, figures in enumerate(zip(losses, norms, strict=True), start=step - len(losses) + 1):
            if not all(map(math.isfinite, figures)):
                raise self._broken(at, *figures, learning_rate)
        seconds = time.monotonic() - self._since
        record = {
            "stage": self._stage,
            "kind": self._kind,
            "step": step,
            "loss": sum(losses) / len(losses),
            "learning_rate": learning_rate,
            "gradient_norm": sum(norms) / len(norms),
            "tokens_per_second": round(self._tokens * self._accelerator.num_processes / seconds),
        }
        if self._notes:
            notes = self._accelerator.reduce(torch.stack([*self._notes.values()]).float(), "mean").tolist()
            record |= dict(zip(self._notes, notes, strict=True))
        if judge:
            record |= judge(step)
        if self._accelerator.is_main_process:
            self._board.add(step, record)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self._losses, self._norms, self._tokens, self._since = [], [], 0, time.monotonic()
        self._notes = {}
        return record

    def _broken(self, step: int, loss: float, norm: float, learning_rate: float) -> Stop:
        return Stop(
            f"stage {self._stage} ({self._kind}): at step {step} the loss is {loss} and the gradient's norm {norm}; "
            f"no checkpoint holds anything of it. Lower learning_rate (it was {learning_rate:.3g} there) or raise "
            "temperature, use precision = 'fp32', look for broken texts in the data, and train again into another --out"
        )
