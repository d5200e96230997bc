"""What a collection of documents is opened from: a `bartizan.toml`, or a path and a tower."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import check
from bartizan_connector.config import Config
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.config.towers import checked_pair
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import engine_of
from bartizan_connector.search.configured import lazy_encoder
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import FieldSpec, FieldType
from bartizan_connector.store.settings import BackendSettings

Fields = Mapping[str, FieldType] | Sequence[FieldSpec]


def read(config: str | Path | Config) -> Config:
    """The configuration, given or in a file."""
    if isinstance(config, Config):
        return config
    if not isinstance(config, str | Path):
        raise WrongUse(
            f"expected the path of a bartizan.toml or a Config, but {config!r:.80} ({type(config).__name__}) came"
        )
    return Config.load(Path(config))


def configured(
    uri: str | Path,
    tower: str | Path,
    *,
    query_tower: str | Path | None,
    name: str,
    fields: Fields,
    chunks: Mapping[str, Any] | ChunkSettings | None,
) -> Config:
    """The configuration of one space, each tower run by the engine that suits what is in its folder."""
    towers: dict[Role, Path] = {"document": Path(tower), "query": Path(tower if query_tower is None else query_tower)}
    specs = {role: TowerSpec.read(folder) for role, folder in towers.items()}
    declared = [{"name": key, "type": kind} for key, kind in fields.items()] if isinstance(fields, Mapping) else fields
    tables = {
        "collection": {"name": name, "fields": tuple(declared)},
        "spaces": {specs["document"].kind: {f"{role}_tower": folder for role, folder in towers.items()}},
        "encoders": {role: {"engine": engine_of(folder)} for role, folder in towers.items()},
        "backend": {"uri": str(uri), "lexical": BackendSettings(uri=str(uri)).is_embedded},
        "chunks": dict(chunks) if isinstance(chunks, Mapping) else chunks,
    }
    return check(Config, tables, Path(str(uri)))


def lazy_encoders(config: Config) -> dict[Role, dict[str, Lazy[Encoder]]]:
    """Leg → encoder, for each role; a tower that plays both roles in one engine is opened once."""
    opened: dict[Role, dict[str, Lazy[Encoder]]] = {
        "document": {leg: lazy_encoder(config, leg, "document") for leg in config.spaces},
        "query": {leg: lazy_encoder(config, leg, "query") for leg in config.spaces},
    }
    for leg, space in config.spaces.items():
        alike = config.encoder(space.encoder("query")) == config.encoder(space.encoder("document"))
        if alike and space.tower("query") == space.tower("document"):
            opened["query"][leg] = opened["document"][leg]
    return opened


class Deferred:
    """A document tower that is opened by the first text: who only removes never opens it. Closing is its owner's."""

    def __init__(self, config: Config, leg: str, encoder: Lazy[Encoder]) -> None:
        self.spec = checked_pair(config, leg).document
        self._encoder = encoder

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        with self._encoder.use() as encoder:
            return encoder.encode(texts, role, timeout=timeout)

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        with self._encoder.use() as encoder:
            return await encoder.aencode(texts, role, timeout=timeout)

    def close(self) -> None:
        """Nothing of its own to let go of."""
