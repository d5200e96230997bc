"""From configuration to working parts: the one place that knows which class serves which key."""

from pathlib import Path
from typing import TYPE_CHECKING

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import TEXT_FIELDS, Config
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import encoder_settings
from bartizan_connector.seams import SearchBackend
from bartizan_connector.space.spec import Role, TowerSpec, require_same_space
from bartizan_connector.store.collection import Collection, Leg

if TYPE_CHECKING:
    from bartizan_connector.search.words import WordIndex
    from bartizan_connector.stream.jsonl import JsonlSource


def tower_folder(config: Config, role: Role) -> Path:
    """The folder of the tower that plays `role`."""
    space = config.space
    return space.document_tower if role == "document" else space.query_tower or space.document_tower


def engine_of(config: Config, role: Role) -> str:
    """The engine that runs the tower for `role`."""
    engines = config.encoder
    return (engines.document_engine or engines.engine) if role == "document" else engines.engine


def checked_spec(config: Config, role: Role) -> TowerSpec:
    """The spec of the tower for `role`, once both towers and the pinned space are found to agree. Loads no weights."""
    document = TowerSpec.read(tower_folder(config, "document"))
    query = TowerSpec.read(tower_folder(config, "query"))
    require_same_space(
        f"query tower '{query.name}' and document tower '{document.name}' do not belong together",
        expected=document.space_id,
        came=query.space_id,
        way_out="Set [space] query_tower to a tower that was distilled from, or trained with, the document tower.",
    )
    if config.space.space_id:
        require_same_space(
            f"[space] space_id pins another space than the towers' ({document.name})",
            expected=config.space.space_id,
            came=document.space_id,
            way_out="Point [space] at towers of the pinned space, or, after re-indexing, pin the new one.",
        )
    return query if role == "query" else document


def open_encoder(config: Config, role: Role) -> Encoder:
    """The encoder that plays `role`, in the configured engine."""
    spec = checked_spec(config, role)
    spec.role(role)
    return load_encoder(
        tower_folder(config, role),
        engine_of(config, role),
        threads=config.encoder.threads,
        batch_tokens=config.encoder.batch_tokens,
    )


def load_encoder(folder: Path, engine: str, *, threads: int = 0, batch_tokens: int | None = None) -> Encoder:
    """The tower or export in `folder`, run by `engine` (an entry point of the group `bartizan.encoders`)."""
    return encoder_settings({"engine": engine, "threads": threads, "batch_tokens": batch_tokens}).open(folder)


def open_backend(config: Config) -> SearchBackend:
    """The configured store; nothing is created yet."""
    backend = config.backend
    if backend.kind == "memory":
        from bartizan_connector.store.memory import MemoryBackend

        return MemoryBackend()
    from bartizan_connector.store.milvus import MilvusBackend

    return MilvusBackend(
        backend.uri,
        token=backend.secret(),
        timeout=backend.timeout,
        consistency=backend.consistency,
        index=backend.index,
    )


def open_words(config: Config) -> "WordIndex | None":
    """The word index, where one is configured; refused here when its folder is another collection's."""
    if config.backend.lexical is None:
        return None
    from bartizan_connector.search.words import WordIndex

    return WordIndex(config.backend.lexical, config.space.collection)


def open_source(config: Config) -> "JsonlSource":
    """The configured source; nothing is read or written yet."""
    from bartizan_connector.stream.jsonl import JsonlSource

    if config.source is None:
        raise WrongUse("the configuration has no [source]; say where the documents are: [source] path = …")
    chosen = config.source
    return JsonlSource(chosen.path, dead_letters=chosen.dead_letters, batch_size=chosen.batch_size)


def collection_of(config: Config, spec: TowerSpec) -> Collection:
    """The contract of the configured collection: one leg for the towers' space, the text, the declared fields."""
    return Collection(name=config.space.collection, legs=(Leg.of(spec),), fields=(*TEXT_FIELDS, *config.space.fields))
