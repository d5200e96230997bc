"""TensorBoard, where it is installed: the figures of metrics.jsonl once more, to look at. The file stays the truth."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NO_FIGURES = {"stage", "kind", "step"}


class Board:
    """RUN/tensorboard; nothing where the package `tensorboard` is missing."""

    def __init__(self, run: Path, *, stage: int, kind: str) -> None:
        self._run, self._prefix = run, f"{stage}-{kind}"
        self._writer: Any = None
        self._wanted = find_spec("tensorboard") is not None

    def begin_after(self, step: int) -> None:
        """Show no more what a killed run noted after that step."""
        if self._wanted:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds, which only who has it should pay

            folder = self._run / "tensorboard" / self._prefix
            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """The figures of one line."""
        if self._writer is None:
            return
        for name, value in record.items():
            if name not in _NO_FIGURES:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
