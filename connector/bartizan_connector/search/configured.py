"""What a configuration names, for searching: read and checked at once, opened when it is first needed."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import TEXT_FIELDS
from bartizan_connector.config.towers import checked_pair, require_distinct
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.legs import Lexical
from bartizan_connector.space.spec import Role
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, Leg

if TYPE_CHECKING:
    from bartizan_connector.search.words.index import WordIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the towers say of the configured collection; of a tower that cannot be read, the stored contract says it."""

    wanted: Collection
    unread: Mapping[str, Stop] = field(default_factory=dict)
    """Legs whose towers cannot be read, and why: they cost their legs only, where something else is left to search."""

    @classmethod
    def of(cls, config: Config) -> "Contract":
        """Refused where spaces do not agree, where a tower cannot encode queries, or where no leg would be left."""
        legs: list[Leg] = []
        unread: dict[str, Stop] = {}
        for name in config.spaces:
            try:
                pair = checked_pair(config, name)
            except SpaceMismatch:
                raise
            except Stop as error:
                unread[name] = error
                continue
            pair.query.role("query")
            space = config.spaces[name]
            config.encoder(space.encoder("query")).require(space.tower("query"))
            legs.append(Leg.of(pair.document, name))
        require_distinct(legs)
        if unread and not legs and config.backend.lexical is None:
            raise next(iter(unread.values()))
        stand_in = [] if legs else [Leg(name=name, kind="dense", dim=1, space_id="unknown") for name in unread]
        fields = (*TEXT_FIELDS, *config.collection.fields)
        return cls(
            wanted=Collection(name=config.collection.name, legs=(*legs, *stand_in), fields=fields), unread=unread
        )

    def stored(self, backend: Backend) -> Collection:
        """What to open."""
        if not self.unread:
            return self.wanted
        physical = backend.aliases().get(self.wanted.name, self.wanted.name)
        there = backend.collections().get(physical)
        legs = {leg.name: leg for leg in self.wanted.legs}
        legs |= {leg.name: leg for leg in (there.legs if there else ()) if leg.name in self.unread}
        return self.wanted.model_copy(update={"legs": tuple(legs.values())})


def open_words(config: Config) -> "WordIndex | None":
    """The word index in a folder of its own, where one is configured; refused here when the folder is another
    collection's."""
    folder = config.backend.words_folder
    if folder is None:
        return None
    from bartizan_connector.search.words.index import WordIndex

    return WordIndex(folder, config.collection.name)


def lazy_words(config: Config, store: Lazy[Store]) -> Lazy[Lexical] | None:
    """The store's own words, or the word index. Only what the configuration itself does wrong is refused at once (the
    folder is another collection's): an index that must be rebuilt is no reason not to search by vectors."""
    if config.backend.lexical is True:
        return Lazy(lambda stack: _own_words(stack.enter_context(store.use())))
    try:
        words = open_words(config)
    except WrongUse:
        raise
    except Stop:
        return Lazy(lambda stack: _words(config, stack))
    return None if words is None else Lazy.opened(words, words.close)


def lazy_store(config: Config, contract: Contract) -> Lazy[Store]:
    """The collection, which is never made by who only searches."""

    def open(stack: ExitStack) -> Store:
        backend = config.backend.open()
        stack.callback(backend.close)
        store = backend.open(contract.stored(backend), create=False)
        stack.callback(store.close)
        return store

    return Lazy(open)


def lazy_encoder(
    config: Config, leg: str, role: Role = "query", *, unread: Mapping[str, Stop] | None = None
) -> Lazy[Encoder]:
    """The tower of one leg that plays that role; of one that cannot be read (`Contract.unread`), the reason."""

    def open(stack: ExitStack) -> Encoder:
        if unread and leg in unread:
            raise unread[leg]
        space = config.spaces[leg]
        encoder = config.encoder(space.encoder(role)).open(space.tower(role))
        stack.callback(encoder.close)
        return encoder

    return Lazy(open)


def _own_words(store: Store) -> Lexical:
    words: Lexical | None = getattr(store, "words", None)
    if words is None:
        raise WrongUse(f"collection '{store.collection.name}' keeps no words: it has neither a title nor a text")
    return words


def _words(config: Config, stack: ExitStack) -> Lexical:
    words = open_words(config)
    assert words is not None
    stack.callback(words.close)
    return words
