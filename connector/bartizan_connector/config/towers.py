"""The towers that a configuration names: their specs checked against each other, the collection they fill, opened."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from bartizan_connector.base.errors import SpaceMismatch
from bartizan_connector.config.file import Config
from bartizan_connector.config.settings import TEXT_FIELDS
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role, TowerSpec, require_same_space
from bartizan_connector.store.collection import Collection, Leg

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The specs of one space's towers, which belong together."""

    document: TowerSpec
    query: TowerSpec


def checked_pair(config: Config, leg: str) -> Pair:
    """The specs of one leg's towers, once both and the pinned space are found to agree. Loads no weights."""
    space = config.spaces[leg]
    pair = Pair(document=TowerSpec.read(space.tower("document")), query=TowerSpec.read(space.tower("query")))
    require_same_space(
        f"query tower '{pair.query.name}' and document tower '{pair.document.name}' do not belong together",
        expected=pair.document.space_id,
        came=pair.query.space_id,
        way_out=f"Set [spaces.{leg}] query_tower to one that was distilled from, or trained with, the document tower.",
    )
    if space.space_id:
        require_same_space(
            f"[spaces.{leg}] space_id pins another space than the towers' ({pair.document.name})",
            expected=space.space_id,
            came=pair.document.space_id,
            way_out=f"Point [spaces.{leg}] at towers of the pinned space, or, after re-indexing, pin the new one.",
        )
    return pair


def collection_of(config: Config) -> Collection:
    """The contract of the configured collection: a leg for each space, the text, the declared fields."""
    legs = tuple(Leg.of(checked_pair(config, leg).document, leg) for leg in config.spaces)
    require_distinct(legs)
    return Collection(name=config.collection.name, legs=legs, fields=(*TEXT_FIELDS, *config.collection.fields))


def require_distinct(legs: Iterable[Leg]) -> None:
    """Refuse one space under two names: each leg would hold the same vectors, and count twice in every answer."""
    named: dict[str, str] = {}
    for leg in legs:
        other = named.setdefault(leg.space_id, leg.name)
        if other != leg.name:
            raise SpaceMismatch(
                f"[spaces.{leg.name}]",
                expected=f"other than {leg.space_id}, which [spaces.{other}] has",
                came=leg.space_id,
                way_out=(
                    "Each document would be encoded and stored twice, and the space count twice in every answer. Leave "
                    "one of the two out, or give it towers of another space; [search] weights makes one leg count more"
                ),
            )


def require_runnable(config: Config, role: Role) -> None:
    """Refuse a tower that cannot play its role, or that the engine named for it can never run. Opens nothing."""
    for leg, space in config.spaces.items():
        getattr(checked_pair(config, leg), role).role(role)
        config.encoder(space.encoder(role)).require(space.tower(role))


def open_encoders(config: Config, role: Role) -> Mapping[str, Encoder]:
    """The encoder of each leg that plays `role`; when one cannot be opened, none stays open."""
    require_runnable(config, role)
    opened: dict[str, Encoder] = {}
    with ExitStack() as undo:
        for leg, space in config.spaces.items():
            settings = config.encoder(space.encoder(role))
            log.info(
                "opening %s, the %s tower of leg '%s', with engine '%s'", space.tower(role), role, leg, settings.engine
            )
            opened[leg] = settings.open(space.tower(role))
            undo.callback(opened[leg].close)
        undo.pop_all()
    return opened
