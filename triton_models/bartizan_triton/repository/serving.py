"""How a model is to be run by Triton: its backend, device, batches and instances."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from bartizan_connector.base.errors import Stop, WrongUse

Backend = Literal["python", "onnxruntime", "tensorrt"]
Device = Literal["cpu", "gpu"]
SERVING_FILE = "serving.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One choice for all versions that are served together."""

    backend: Backend = "onnxruntime"
    device: Device = "cpu"
    instances: int = 1
    """Copies of the model on the device (on each of them, when it is gpu): as many batches run side by side."""
    max_batch: int = 64
    """Rows; a client sends no more at once, and Triton joins no more."""
    delay_us: int = 0
    """How long Triton waits for a fuller batch; 0: it joins what is waiting already."""
    terms: int = 512
    """Sparse: how many of a text's heaviest terms are given."""

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise WrongUse(f"backend {self.backend!r} is not one of {', '.join(get_args(Backend))}")
        if self.device not in get_args(Device):
            raise WrongUse(f"device {self.device!r} is not one of {', '.join(get_args(Device))}")
        if self.backend == "tensorrt" and self.device != "gpu":
            raise WrongUse("backend 'tensorrt' runs on a GPU only: give --device gpu, or --backend onnxruntime")
        for name, least in (("instances", 1), ("max_batch", 1), ("delay_us", 0), ("terms", 1)):
            value = getattr(self, name)
            if value < least:
                raise WrongUse(f"{name} = {value} makes no sense; expected {least} or more")

    def write(self, folder: Path) -> None:
        """Save beside a version's model."""
        (folder / SERVING_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What a version was exported for."""
        path = folder / SERVING_FILE
        try:
            facts: dict[str, Any] = json.loads(path.read_bytes())
            return cls(**facts)
        except (OSError, ValueError, TypeError) as error:
            raise Stop(f"{path} cannot be read ({error}): {folder} is no version of an exported model") from error
