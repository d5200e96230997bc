"""The settings of the engine `torch`, readable where torch is not installed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import MODEL_FILE, TOWER_FILE
from bartizan_connector.encode.settings import EncoderSettings


class TorchSettings(EncoderSettings):
    """torch in this process: towers as they were trained, on the GPU when there is one."""

    engine: Literal["torch"] = "torch"
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads for one batch; 0: torch's own choice, within the cores that the process may use."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens encoded at once, padding included; none: what suits the device."""

    def require(self, folder: Path) -> None:
        """An export has no weights for torch."""
        if (folder / MODEL_FILE).exists() and not (folder / TOWER_FILE).exists():
            raise WrongUse(
                f"{folder} is an export, and torch runs towers as they were trained: name the tower, or leave "
                'engine = "torch" out'
            )

    def open(self, folder: Path) -> Encoder:
        """The tower in `folder`."""
        from bartizan_encoders.local import TorchEncoder

        return TorchEncoder.open(folder, threads=self.threads, batch_tokens=self.batch_tokens)
