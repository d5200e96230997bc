"""Retriever: a query in, ranked documents out; encode → search the legs side by side → fuse, under one deadline."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bartizan_connector import filters
from bartizan_connector.collection import Collection, Hit
from bartizan_connector.config import Config
from bartizan_connector.errors import Retry, WrongUse
from bartizan_connector.filters import Filter
from bartizan_connector.fusion import Result, alone, check_weights, fuse
from bartizan_connector.opening import collection_of, open_backend, open_encoder, open_words
from bartizan_connector.seams import Encoder, SearchBackend
from bartizan_connector.spec import require_same_space
from bartizan_connector.vectors import Vectors

LEXICAL = "lexical"
FUSION_DEPTH = 100
"""How deep each leg is read before fusion; fewer loses documents that one leg ranks low and another high."""
MAX_K = 1000


class Lexical(Protocol):
    """The lexical leg: a library's index, or a call-back into the search stack that hosts us."""

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Where the time of one call went, in milliseconds."""

    encode: float
    legs: Mapping[str, float]
    fuse: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The results of one query, and under which contract they were found."""

    results: tuple[Result, ...]
    space_id: str
    tower_id: str
    truncated: bool
    """Whether the tower saw only the beginning of the query."""
    degraded: str | None
    """Why a leg is missing, when one is."""
    latency_ms: Latency

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> Result:
        return self.results[index]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one leg gave, or why it gave nothing."""

    hits: list[Hit] | None
    milliseconds: float
    vectors: Vectors | None = None
    encode_milliseconds: float = 0.0
    failure: Retry | None = None


class Retriever:
    """Searches one collection with one query tower. Safe to share between threads; close it when done.

    `lexical_weight` is how much the lexical leg counts in the fusion, where the tower's leg counts 1."""

    def __init__(
        self,
        encoder: Encoder,
        backend: SearchBackend,
        collection: Collection,
        *,
        words: Lexical | None = None,
        lexical_weight: float = 1.0,
        timeout: float = 30.0,
    ) -> None:
        self._weights = {LEXICAL: lexical_weight}
        check_weights(self._weights)
        self.encoder = encoder
        self.backend = backend
        self.collection = collection
        self.words = words
        self.timeout = timeout
        encoder.spec.role("query")
        self._leg = collection.leg(encoder.spec.kind)
        require_same_space(
            f"query tower '{encoder.spec.name}' cannot search collection '{collection.name}'",
            expected=self._leg.space_id,
            came=encoder.spec.space_id,
            way_out="Use the query tower of that space, or index the documents again with the other document tower.",
        )
        backend.ensure(collection, create=False)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="bartizan-leg")

    @classmethod
    def open(cls, config: str | Path | Config) -> Self:
        """The retriever that a `bartizan.toml` describes."""
        if not isinstance(config, Config):
            config = Config.load(Path(config))
        encoder = open_encoder(config, "query")
        collection = collection_of(config, encoder.spec)
        backend = open_backend(config)
        return cls(
            encoder,
            backend,
            collection,
            words=open_words(config),
            lexical_weight=config.backend.lexical_weight,
            timeout=config.backend.timeout,
        )

    def search(
        self,
        query: str,
        k: int = 10,
        filter: str | Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The k best documents for the query, by all legs or by those named. A leg that is unreachable or late is left
        out and named in `degraded`; only when no leg answered is the first leg's error raised."""
        begun = time.perf_counter()
        deadline = begun + (timeout or self.timeout)
        calls = self._prepare(query, k, filter, legs, deadline)
        futures = {name: self._pool.submit(leg) for name, leg in calls.items()}
        outcomes = {name: _await(future, name, deadline) for name, future in futures.items()}
        return self._answer(outcomes, k, begun)

    async def asearch(
        self,
        query: str,
        k: int = 10,
        filter: str | Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """`search` without blocking the event loop; cancelling it drops the answer."""
        begun = time.perf_counter()
        deadline = begun + (timeout or self.timeout)
        calls = self._prepare(query, k, filter, legs, deadline)
        futures = [asyncio.wrap_future(self._pool.submit(leg)) for leg in calls.values()]
        await asyncio.wait(futures, timeout=max(0.0, deadline - time.perf_counter()))
        outcomes = {
            name: future.result() if future.done() else _late(name, begun)
            for name, future in zip(calls, futures, strict=True)
        }
        return self._answer(outcomes, k, begun)

    def close(self) -> None:
        """Let go of the encoder and the store."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.encoder.close()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(
        self, query: str, k: int, filter: str | Filter | None, legs: Sequence[str] | None, deadline: float
    ) -> dict[str, Callable[[], _Outcome]]:
        """The call of each leg that is to be searched, once the request is found to mean something."""
        if not query.strip():
            raise WrongUse("the query is empty; give a few words")
        if not 1 <= k <= MAX_K:
            raise WrongUse(f"k = {k} is out of range; ask for 1 to {MAX_K} results")
        parsed = filters.parse(filter) if isinstance(filter, str) else filter
        if parsed is not None:
            filters.check(parsed, self.collection)
        chosen = self._chosen(legs)
        depth = max(k, FUSION_DEPTH) if len(chosen) > 1 else k
        calls = self._calls(query, depth, parsed, deadline)
        return {name: calls[name] for name in chosen}

    def _chosen(self, legs: Sequence[str] | None) -> list[str]:
        """The legs to search, in the retriever's own order."""
        known = [self._leg.name] + ([LEXICAL] if self.words else [])
        if legs is None:
            return known
        asked = {legs} if isinstance(legs, str) else set(legs)
        if LEXICAL in asked and not self.words:
            raise WrongUse(
                "there is no lexical leg: set [backend] lexical to a folder and ingest, or give the retriever a "
                "word search of your own"
            )
        if not asked or not asked <= set(known):
            what = f"unknown leg {', '.join(map(repr, sorted(asked - set(known))))}" if asked else "no leg is named"
            raise WrongUse(f"{what}; this collection is searched by {', '.join(known)}")
        return [name for name in known if name in asked]

    def _calls(
        self, query: str, depth: int, filter: Filter | None, deadline: float
    ) -> dict[str, Callable[[], _Outcome]]:
        def dense() -> _Outcome:
            begun = time.perf_counter()
            vectors = None
            try:
                vectors = self.encoder.encode([query], "query", timeout=_left(deadline))
                encoded = time.perf_counter()
                (hits,) = self.backend.search(self._leg.name, vectors, depth, filter, timeout=_left(deadline))
            except Retry as error:
                return _Outcome(None, _since(begun), vectors, failure=error)
            return _Outcome(hits, _since(encoded), vectors, (encoded - begun) * 1000)

        def lexical() -> _Outcome:
            assert self.words is not None
            begun = time.perf_counter()
            try:
                hits = self.words.search(query, depth, filter, timeout=_left(deadline))
            except Retry as error:
                return _Outcome(None, _since(begun), failure=error)
            return _Outcome(hits, _since(begun))

        return {self._leg.name: dense, LEXICAL: lexical}

    def _answer(self, outcomes: Mapping[str, _Outcome], k: int, begun: float) -> Answer:
        found = {name: outcome.hits for name, outcome in outcomes.items() if outcome.hits is not None}
        failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
        if not found:
            raise next(iter(failures.values()))
        fusing = time.perf_counter()
        if len(outcomes) > 1:
            results = fuse(found, k, weights=self._weights)
        else:
            ((name, hits),) = found.items()
            results = alone(name, hits, k)
        vectors = next((outcome.vectors for outcome in outcomes.values() if outcome.vectors), None)
        return Answer(
            results=results,
            space_id=self._leg.space_id,
            tower_id=self.encoder.spec.tower_id,
            truncated=bool(vectors and vectors.truncated[0]),
            degraded="; ".join(f"no {name} leg: {failure}" for name, failure in failures.items()) or None,
            latency_ms=Latency(
                encode=sum(outcome.encode_milliseconds for outcome in outcomes.values()),
                legs={name: outcome.milliseconds for name, outcome in outcomes.items()},
                fuse=_since(fusing),
                total=_since(begun),
            ),
        )


def _await(future: Future[_Outcome], name: str, deadline: float) -> _Outcome:
    begun = time.perf_counter()
    try:
        return future.result(timeout=_left(deadline))
    except FutureTimeout:
        future.cancel()
        return _late(name, begun)


def _late(name: str, begun: float) -> _Outcome:
    waited = _since(begun)
    return _Outcome(None, waited, failure=Retry(f"the {name} leg had not answered by the deadline", after=0.0))


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.perf_counter())


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
