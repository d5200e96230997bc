"""Settings of encoders: each engine has a table with keys of its own, and the table opens the encoder.

    [encoders.query]             engine = "onnx" when it is not named
    engine = "torch"             in this process: threads, batches; an engine elsewhere: an address, a version, TLS
    threads = 4

An engine of another package is found by its entry point in the group `bartizan.encoders`: its name, and the class of
its settings, which has that name as the default of `engine` and imports the engine itself only in `open`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table, Unfit
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import require_export

GROUP = "bartizan.encoders"
DEFAULT_ENGINE = "onnx"


class EncoderSettings(Table):
    """What every engine's table has; each adds its own keys, and a literal type to `engine`."""

    engine: str

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`; most engines' tables have none."""
        return self

    def require(self, folder: Path) -> None:
        """Refuse a folder that this engine can never run, before anything is opened; most know none."""

    def open(self, folder: Path) -> Encoder:
        """The tower or export in `folder`, run by this engine."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its encoder is opened")


class OnnxSettings(EncoderSettings):
    """ONNX Runtime in this process: exports, no torch."""

    engine: Literal["onnx"] = "onnx"
    threads: Annotated[int, Field(ge=0)] = 0
    """Batches that are encoded side by side, one thread each; 0: all cores."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens encoded at once, padding included; none: what suits a core's cache."""

    def require(self, folder: Path) -> None:
        """A tower as it was trained has no ONNX model."""
        require_export(folder)

    def open(self, folder: Path) -> Encoder:
        """The export in `folder`."""
        from bartizan_connector.encode.onnx import OnnxEncoder

        return OnnxEncoder.open(folder, threads=self.threads, batch_tokens=self.batch_tokens)


def engine_of(folder: Path) -> str:
    """The engine that runs what lies there: ONNX Runtime an export, torch a tower as it was trained."""
    return "torch" if (folder / "config.json").exists() and not (folder / "model.onnx").exists() else DEFAULT_ENGINE


def encoder_settings(table: Mapping[str, Any]) -> EncoderSettings:
    """The table as the settings of the engine that it names; an unknown engine, key or value is refused."""
    try:
        return _picked(table)
    except ValueError as error:
        raise WrongUse(f"an encoder's table: {error}") from error


def _picked(table: object) -> EncoderSettings:
    if isinstance(table, EncoderSettings):
        return table
    if not isinstance(table, Mapping):
        raise ValueError(f"must be a table, but {table!r:.80} came")
    engine, known = table.get("engine", DEFAULT_ENGINE), _engines()
    if not isinstance(engine, str) or engine not in known:
        raise ValueError(f"unknown engine {engine!r:.80}; known: {', '.join(sorted(known))}")
    model = known[engine].load()
    if not (isinstance(model, type) and issubclass(model, EncoderSettings)):
        raise ValueError(f"the entry point {known[engine].value} of engine '{engine}' names no EncoderSettings")
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise Unfit(model, error) from error


AnyEncoder = Annotated[SerializeAsAny[EncoderSettings], BeforeValidator(_picked)]
"""A field of a configuration that takes the table of any engine."""


@cache
def _engines() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
