"""What a configuration names, for searching: read and checked at once, opened when it is first needed."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.legs import Lexical
from bartizan_connector.space.spec import Role
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection

if TYPE_CHECKING:
    from bartizan_connector.search.words.index import WordIndex


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


def lazy_store(config: Config, collection: Collection) -> Lazy[Store]:
    """The collection, which is never made by who only searches."""

    def open(stack: ExitStack) -> Store:
        backend = config.backend.open()
        stack.callback(backend.close)
        store = backend.open(collection, create=False)
        stack.callback(store.close)
        return store

    return Lazy(open)


def lazy_encoder(config: Config, leg: str, role: Role = "query") -> Lazy[Encoder]:
    """The tower of one leg that plays that role."""

    def open(stack: ExitStack) -> Encoder:
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
