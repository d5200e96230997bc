"""`[encoders.NAME]`: which engine runs a tower, and how; told apart by `engine`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bartizan_connector.base.tables import Table
from bartizan_connector.encode.encoder import Encoder


class EncoderSettings(Table):
    """What every engine's table has."""

    engine: str

    def open(self, folder: Path) -> Encoder:
        """The tower or export in `folder`, run by this engine."""
        raise NotImplementedError


class OnnxSettings(EncoderSettings):
    """ONNX Runtime in this process."""

    engine: Literal["onnx"] = "onnx"
    threads: Annotated[int, Field(ge=0)] = 0
    batch_tokens: Annotated[int, Field(ge=1)] | None = None

    def open(self, folder: Path) -> Encoder:
        from bartizan_connector.encode.onnx import OnnxEncoder

        return OnnxEncoder.open(folder, threads=self.threads, batch_tokens=self.batch_tokens)


def encoder_settings(table: Any) -> Any:
    """The table as the settings of the engine that it names."""
    return OnnxSettings(**table) if isinstance(table, Mapping) else table


AnyEncoder = Annotated[EncoderSettings, BeforeValidator(encoder_settings)]
