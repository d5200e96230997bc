"""A re-embedding as configurations describe it: the new one, and the old where it is compared or gone back to."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.config.towers import collection_of, open_encoders
from bartizan_connector.search.configured import Contract, lazy_encoder, open_words
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.backend import Backend
from bartizan_connector.stream.reembed.gates import Searches
from bartizan_connector.stream.reembed.judged import Judged, Search
from bartizan_connector.stream.reembed.names import Place
from bartizan_connector.stream.reembed.reembedding import SETTLE_SECONDS, Encoders, Reembedding
from bartizan_connector.stream.reembed.stored import whole_text
from bartizan_connector.stream.source import Source
from bartizan_connector.stream.words import Words

_QUERIES = 50
_WORDS = 12
_AMONG = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """Two configurations of one collection, opened."""

    new: Config
    old: Config | None
    backend: Backend
    reembedding: Reembedding

    @classmethod
    @contextmanager
    def opened(cls, new: Config, old: Config | None = None, *, settle: float = SETTLE_SECONDS) -> Iterator["Towers"]:
        """Once both are found to be about the same collection. No tower is opened yet."""
        if old is not None and (old.collection.name, old.backend.uri) != (new.collection.name, new.backend.uri):
            raise WrongUse(
                f"both configurations must be of one collection, but '{old.collection.name}' at {old.backend.uri} and "
                f"'{new.collection.name}' at {new.backend.uri} came; change only [spaces] and [encoders] in the new one"
            )
        wanted = collection_of(new)
        with closing(new.backend.open()) as backend:
            reembedding = Reembedding(backend, wanted, settle=settle)
            yield cls(new=new, old=old, backend=backend, reembedding=reembedding)

    @contextmanager
    def encoders(self, config: Config, *, needed: bool = True) -> Iterator[Encoders]:
        """The document towers of one configuration; none are opened where none are needed."""
        with ExitStack() as left:
            opened = open_encoders(config, "document") if needed else {}
            for encoder in opened.values():
                left.callback(encoder.close)
            yield opened

    @contextmanager
    def words(self, config: Config, physical: str | None) -> Iterator[Words | None]:
        """The word index beside Milvus, if there is one and it is not another collection's: the running worker looks
        after the folder that it uses; one that both configurations name follows when the new worker starts."""
        words = open_words(config)
        if words is None:
            yield None
            return
        with closing(words):
            yield words if words.filled_from() in (None, physical) else None

    def topic(self) -> Callable[[bool], Source] | None:
        """Opens the topic under a group of its own; None where documents come from files."""
        settings = self.new.source
        if not isinstance(settings, KafkaSettings):
            return None
        spaces = "".join(sorted(leg.space_id for leg in collection_of(self.new).legs))
        which = hashlib.sha256(spaces.encode()).hexdigest()[:8]
        own = settings.model_copy(
            update={"group": f"{settings.group}.reembed-{which}", "dead_letters": f"{settings.letters}.reembed"}
        )

        def open(follow: bool) -> Source:
            from bartizan_connector.stream.kafka.source import KafkaSource

            return KafkaSource.open(own, follow=follow)

        return open

    @contextmanager
    def searching(self, judged: Judged | None) -> Iterator[Callable[[Place], Searches]]:
        """How both configurations search, each over the collection that its towers are of."""
        old = self.old
        assert old is not None
        with ExitStack() as left:

            def searches(place: Place) -> Searches:
                now = self._search(old, place.serving, left)
                new = self._search(self.new, place.next or place.serving, left)
                queries = list(judged.queries.values()) if judged else self._queries(place)
                return Searches(now=now, new=new, judged=judged, queries=queries)

            yield searches

    def _search(self, config: Config, physical: str, left: ExitStack) -> Search:
        contract = Contract.of(config)
        store = self.backend.open(contract.wanted, create=False, name=physical)
        encoders = {leg: lazy_encoder(config, leg, unread=contract.unread) for leg in config.spaces}
        retriever = Retriever.over(config, contract.wanted, Lazy.opened(store, store.close), encoders)
        left.callback(retriever.close)

        def search(text: str, k: int) -> list[str]:
            answer = retriever.search(text, k)
            if answer.degraded:
                raise Stop(f"the towers cannot be compared, as one of the legs does not answer: {answer.degraded}")
            return [result.id for result in answer]

        return search

    def _queries(self, place: Place) -> list[str]:
        """What people might ask: the first words of some documents."""
        with closing(self.backend.open(place.contract, create=False, name=place.serving)) as store:
            texts = [whole_text(document) for document in islice(store.scan(), _AMONG)]
        chosen = texts[:: max(1, len(texts) // _QUERIES)][:_QUERIES]
        told = (str(fields.get("title") or fields.get("text") or "") for fields in chosen)
        return [" ".join(text.split()[:_WORDS]) for text in told if text.strip()]


def read_judged(folder: Path | None, split: str) -> Judged | None:
    """The judged set, if one is given."""
    return None if folder is None else Judged.read(folder, split)
