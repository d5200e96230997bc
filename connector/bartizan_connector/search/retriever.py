"""Retriever: a query in, ranked documents out; encode → search the legs side by side → fuse, under one deadline."""

import time
from collections.abc import Mapping, Sequence
from typing import Self

from bartizan_connector.base.errors import BartizanError, Retry, WrongUse
from bartizan_connector.base.paths import AnyPath
from bartizan_connector.config import Config
from bartizan_connector.config.settings import LEXICAL, Fusion, OfDocument
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.search.answer import Answer, Encoded, Latency
from bartizan_connector.search.asking import Asking
from bartizan_connector.search.configured import Contract, lazy_encoder, lazy_store, lazy_words
from bartizan_connector.search.distinct import check_of_document
from bartizan_connector.search.fusion import alone, check_fusion, check_weights, fuse
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.legs import Attempt, Late, Leg, Lexical, LexicalLeg, Unforeseen, VectorLeg, found
from bartizan_connector.search.request import Request, checked, seconds
from bartizan_connector.store.backend import Store
from bartizan_connector.store.checks import require_leg
from bartizan_connector.store.collection import Collection
from bartizan_connector.store.filters import Filter

FUSION_DEPTH = 100
"""How deep each leg is read before fusion; fewer loses documents that one leg ranks low and another high."""
_OTHER_TOWER = "Use the query tower of that space, or index the documents again with the other document tower."


class Retriever(Asking):
    """Searches one collection: by each leg that has an encoder, and by words where there are some. Safe to share
    between threads; close it when done, and with it the encoders, the store and the words.

    `weights` say how much each leg counts in the fusion, by name (`lexical` is the words'), 1 where nothing is said;
    `fusion` is by ranks (`rrf`) or by `scores`; of a document in several chunks the best counts (`max`), or the `first`
    alone (`of_document`)."""

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        store: Store,
        *,
        words: Lexical | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "rrf",
        of_document: OfDocument = "max",
        timeout: float = 30.0,
    ) -> None:
        collection = store.collection
        for leg, encoder in encoders.items():
            encoder.spec.role("query")
            require_leg(collection, leg, encoder.spec, "cannot search", way_out=_OTHER_TOWER)
        if LEXICAL in encoders and words is not None:
            raise WrongUse(f"the collection's leg '{LEXICAL}' and the word search have one name; rename that leg")
        self._prepare(
            collection,
            {leg: Lazy.opened(encoder, encoder.close) for leg, encoder in encoders.items()},
            Lazy.opened(store, store.close),
            Lazy.opened(words, getattr(words, "close", None)) if words is not None else None,
            weights or {},
            fusion,
            of_document,
            timeout,
        )

    @classmethod
    def open(cls, config: AnyPath | Config) -> Self:
        """The retriever that a `bartizan.toml` describes. Its towers' specs are read and compared here; the towers
        themselves, the store and the words are opened by the first search that needs them, within its deadline. A tower
        that cannot be read costs its leg only, where another leg or words are left."""
        if not isinstance(config, Config):
            config = Config.load(config)
        contract = Contract.of(config)
        store = lazy_store(config, contract)
        encoders = {leg: lazy_encoder(config, leg, unread=contract.unread) for leg in config.spaces}
        return cls.over(config, contract.wanted, store, encoders)

    @classmethod
    def over(
        cls, config: Config, collection: Collection, store: Lazy[Store], encoders: Mapping[str, Lazy[Encoder]]
    ) -> Self:
        """The same over a store and query towers that somebody else opens; it closes them all the same."""
        retriever = cls.__new__(cls)
        retriever._prepare(
            collection,
            encoders,
            store,
            lazy_words(config, store),
            config.search.weights,
            config.search.fusion,
            config.search.of_document,
            config.search.timeout,
        )
        return retriever

    def _prepare(
        self,
        collection: Collection,
        encoders: Mapping[str, Lazy[Encoder]],
        store: Lazy[Store],
        words: Lazy[Lexical] | None,
        weights: Mapping[str, float],
        fusion: Fusion,
        of_document: OfDocument,
        timeout: float,
    ) -> None:
        check_weights(weights)
        check_fusion(fusion)
        check_of_document(of_document)
        self.timeout = seconds(timeout, "timeout")
        self.collection = collection
        self._weights, self._fusion = dict(weights), fusion
        legs: list[Leg] = [VectorLeg(name, encoder, store, of_document) for name, encoder in encoders.items()]
        if words is not None:
            legs.append(LexicalLeg(LEXICAL, words, of_document))
        if not legs:
            raise WrongUse("there is nothing to search by: give an encoder for a leg of the collection, or words")
        if unknown := sorted(set(weights) - {leg.name for leg in legs} - {LEXICAL}):
            names = ", ".join(leg.name for leg in legs)
            raise WrongUse(f"a weight for the leg {unknown[0]!r}, which is not there; this is searched by {names}")
        self._legs = legs
        self._store = store
        self._closed = False

    @property
    def legs(self) -> tuple[str, ...]:
        """What can be searched by, by name."""
        return tuple(leg.name for leg in self._legs)

    def close(self) -> None:
        """Let go of the encoders, the store and the words; what a call is still using is closed when that call ends.
        Closing twice is fine."""
        self._closed = True
        for leg in self._legs:
            leg.close()
        self._store.close()

    def request(
        self,
        query: str,
        k: int,
        filter: str | Filter | None,
        legs: Sequence[str] | None,
        timeout: float | None,
    ) -> Request:
        if self._closed:
            raise WrongUse("this retriever is closed; open another, and close it after the last search")
        return checked(self.collection, query, k, filter, legs, self.timeout if timeout is None else timeout)

    async def _answered(self, request: Request, *, blocking: bool) -> Answer:
        return self.answer(request, await self.attempts(request, blocking=blocking))

    async def attempts(self, request: Request, *, blocking: bool) -> dict[str, Attempt]:
        """What each leg that is asked for gave by the deadline. `search` and `asearch` differ only in how they wait."""
        self._require_legs(request)
        chosen = [leg for leg in self._legs if request.legs is None or leg.name in request.legs]
        depth = max(request.k, FUSION_DEPTH) if len(chosen) > 1 else request.k
        return await found(chosen, request, depth, blocking=blocking)

    def _require_legs(self, request: Request) -> None:
        asked = self.legs if request.legs is None else request.legs
        if LEXICAL in asked and LEXICAL not in self.legs:
            raise WrongUse(
                "there is no lexical leg: set [backend] lexical to a folder and ingest (to true, in the embedded "
                "store), or give the retriever a word search of your own"
            )
        if unknown := sorted(set(asked) - set(self.legs)):
            what = f"unknown leg {', '.join(map(repr, unknown))}"
            raise WrongUse(f"{what}; this collection is searched by {', '.join(self.legs)}")
        if not asked:
            raise WrongUse(f"no leg is named; this collection is searched by {', '.join(self.legs)}")

    def answer(self, request: Request, attempts: Mapping[str, Attempt]) -> Answer:
        """The answer out of what the legs gave; where none gave anything, why is raised."""
        hits = {name: attempt.hits for name, attempt in attempts.items() if attempt.hits is not None}
        failures = {name: attempt.failure for name, attempt in attempts.items() if attempt.failure}
        if not hits:
            raise min(failures.values(), key=_rank)
        fusing = time.perf_counter()
        if len(attempts) > 1:
            results = fuse(hits, request.k, weights=self._weights, fusion=self._fusion)
        else:
            ((name, only),) = hits.items()
            results = alone(name, only, request.k)
        encoded = {
            name: Encoded(tower_id=attempt.vectors.tower_id, space_id=attempt.vectors.space_id)
            for name, attempt in attempts.items()
            if attempt.vectors
        }
        one = next(iter(encoded.values())) if len(encoded) == 1 else None
        return Answer(
            results=results,
            encoded=encoded,
            space_id=one.space_id if one else None,
            tower_id=one.tower_id if one else None,
            truncated=any(attempt.vectors.truncated[0] for attempt in attempts.values() if attempt.vectors),
            degraded=_degraded(attempts),
            latency_ms=_latency(request, attempts, fusing),
        )


def _degraded(attempts: Mapping[str, Attempt]) -> str | None:
    """Which legs are missing, and which were encoded by another tower than the one that was meant; and why."""
    told = []
    for name, attempt in attempts.items():
        if attempt.failure:
            told.append(f"no {name} leg: {attempt.failure}")
        elif attempt.vectors and attempt.vectors.degraded:
            told.append(f"{name} leg by {attempt.vectors.tower_id}, {attempt.vectors.degraded}")
    return "; ".join(told) or None


def _latency(request: Request, attempts: Mapping[str, Attempt], fusing: float) -> Latency:
    now = time.perf_counter()
    return Latency(
        open=max(attempt.milliseconds.get("open", 0.0) for attempt in attempts.values()),
        encode=max(attempt.milliseconds.get("encode", 0.0) for attempt in attempts.values()),
        legs={name: attempt.searching for name, attempt in attempts.items()},
        fuse=(now - fusing) * 1000,
        total=(now - request.begun) * 1000,
    )


def _rank(failure: BartizanError) -> int:
    """The most telling first: what a person must mend, what nobody foresaw, what may pass, what is only late."""
    if isinstance(failure, Retry):
        return 3 if isinstance(failure, Late) else 2
    return 1 if isinstance(failure, Unforeseen) else 0
