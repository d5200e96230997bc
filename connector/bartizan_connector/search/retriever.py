"""Retriever: a query in, ranked documents out; encode → search the legs side by side → fuse, under one deadline."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.encode.answers import check_answer, trusting
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.opening import collection_of, open_backend, open_encoder, open_words
from bartizan_connector.seams import SearchBackend
from bartizan_connector.search.fusion import Fusion, Result, alone, check_fusion, check_weights, fuse
from bartizan_connector.search.legs import LegThreads, Outcome, afinished, finished, left, since
from bartizan_connector.search.request import Request, checked, seconds
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.checks import leg_for
from bartizan_connector.store.collection import Collection, Hit
from bartizan_connector.store.filters import Filter

LEXICAL = "lexical"
FUSION_DEPTH = 100
"""How deep each leg is read before fusion; fewer loses documents that one leg ranks low and another high."""


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


class Retriever:
    """Searches one collection with one query tower. Safe to share between threads; close it when done.

    `lexical_weight` is how much the lexical leg counts in the fusion, where the tower's leg counts 1; `fusion` is by
    ranks (`rrf`) or by `scores`."""

    def __init__(
        self,
        encoder: Encoder,
        backend: SearchBackend,
        collection: Collection,
        *,
        words: Lexical | None = None,
        lexical_weight: float = 1.0,
        fusion: Fusion = "rrf",
        timeout: float = 30.0,
    ) -> None:
        self._weights = {LEXICAL: lexical_weight}
        check_weights(self._weights)
        check_fusion(fusion)
        self._fusion: Fusion = fusion
        self.encoder = encoder
        self.backend = backend
        self.collection = collection
        self.words = words
        self.timeout = seconds(timeout, "timeout")
        encoder.spec.role("query")
        self._leg = leg_for(
            collection,
            encoder.spec,
            "cannot search",
            way_out="Use the query tower of that space, or index the documents again with the other document tower.",
        )
        self._legs = [self._leg.name] + ([LEXICAL] if words else [])
        if len(set(self._legs)) < len(self._legs):
            raise WrongUse(f"the collection's leg '{LEXICAL}' and the word search have one name; rename that leg")
        backend.ensure(collection, create=False)
        self._threads = {name: LegThreads(name) for name in self._legs}
        self._closed = False

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
            fusion=config.backend.fusion,
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
        """The k best documents for the query, by all legs or by those named, within `timeout` seconds. A leg that is
        unreachable or late is left out and named in `degraded`; only when no leg answered is its error raised."""
        request = self._checked(query, k, filter, legs, timeout)
        calls = self._calls(request)
        futures = {name: self._threads[name].submit(call, request.deadline) for name, call in calls.items()}
        return self._answer(request, finished(futures, request.deadline))

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
        request = self._checked(query, k, filter, legs, timeout)
        tasks = {name: asyncio.create_task(call) for name, call in self._acalls(request).items()}
        return self._answer(request, await afinished(tasks, request.deadline))

    def close(self) -> None:
        """Let go of the encoder and the store."""
        self._closed = True
        for threads in self._threads.values():
            threads.close()
        self.encoder.close()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(
        self,
        query: str,
        k: int,
        filter: str | Filter | None,
        legs: Sequence[str] | None,
        timeout: float | None,
    ) -> Request:
        """The request, once it is found to mean something here."""
        if self._closed:
            raise WrongUse("this retriever is closed; open another, and close it after the last search")
        request = checked(self.collection, query, k, filter, legs, self.timeout if timeout is None else timeout)
        asked = self._legs if request.legs is None else request.legs
        if LEXICAL in asked and LEXICAL not in self._legs:
            raise WrongUse(
                "there is no lexical leg: set [backend] lexical to a folder and ingest, or give the retriever a "
                "word search of your own"
            )
        if unknown := sorted(set(asked) - set(self._legs)):
            what = f"unknown leg {', '.join(map(repr, unknown))}"
            raise WrongUse(f"{what}; this collection is searched by {', '.join(self._legs)}")
        if not asked:
            raise WrongUse(f"no leg is named; this collection is searched by {', '.join(self._legs)}")
        return request

    def _chosen(self, request: Request) -> tuple[list[str], int]:
        """The legs to search, in the retriever's own order, and how deep."""
        chosen = [name for name in self._legs if request.legs is None or name in request.legs]
        return chosen, max(request.k, FUSION_DEPTH) if len(chosen) > 1 else request.k

    def _calls(self, request: Request) -> dict[str, Callable[[], Outcome]]:
        chosen, depth = self._chosen(request)
        return {
            name: partial(self._by_words if name == LEXICAL else self._by_vectors, request, depth) for name in chosen
        }

    def _acalls(self, request: Request) -> dict[str, Coroutine[Any, Any, Outcome]]:
        chosen, depth = self._chosen(request)
        return {
            name: self._aby_words(request, depth) if name == LEXICAL else self._aby_vectors(request, depth)
            for name in chosen
        }

    def _by_vectors(self, request: Request, depth: int) -> Outcome:
        begun = time.perf_counter()
        vectors = None
        try:
            with trusting(self.encoder.spec):
                vectors = self.encoder.encode([request.query], "query", timeout=left(request.deadline))
            encoded = time.perf_counter()
            hits = self._nearest(request, depth, vectors)
        except Retry as error:
            return Outcome(None, since(begun), vectors, failure=error)
        return Outcome(hits, since(encoded), vectors, (encoded - begun) * 1000)

    async def _aby_vectors(self, request: Request, depth: int) -> Outcome:
        """As `_by_vectors`: the encoder in its own asynchronous way, the store in a thread of the leg."""
        begun = time.perf_counter()
        vectors = None
        try:
            with trusting(self.encoder.spec):
                vectors = await self.encoder.aencode([request.query], "query", timeout=left(request.deadline))
            encoded = time.perf_counter()
            search = partial(self._nearest, request, depth, vectors)
            hits = await asyncio.wrap_future(self._threads[self._leg.name].submit(search, request.deadline))
        except Retry as error:
            return Outcome(None, since(begun), vectors, failure=error)
        return Outcome(hits, since(encoded), vectors, (encoded - begun) * 1000)

    def _nearest(self, request: Request, depth: int, vectors: Vectors) -> list[Hit]:
        check_answer(vectors, self.encoder.spec, 1)
        timeout = left(request.deadline)
        (hits,) = self.backend.search(self._leg.name, vectors, depth, request.filter, timeout=timeout)
        return hits

    def _by_words(self, request: Request, depth: int) -> Outcome:
        assert self.words is not None
        begun = time.perf_counter()
        try:
            hits = self.words.search(request.query, depth, request.filter, timeout=left(request.deadline))
        except Retry as error:
            return Outcome(None, since(begun), failure=error)
        return Outcome(hits, since(begun))

    async def _aby_words(self, request: Request, depth: int) -> Outcome:
        begun = time.perf_counter()
        call = partial(self._by_words, request, depth)
        try:
            return await asyncio.wrap_future(self._threads[LEXICAL].submit(call, request.deadline))
        except Retry as error:
            return Outcome(None, since(begun), failure=error)

    def _answer(self, request: Request, outcomes: Mapping[str, Outcome]) -> Answer:
        found = {name: outcome.hits for name, outcome in outcomes.items() if outcome.hits is not None}
        failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
        if not found:
            raise next(iter(failures.values()))
        fusing = time.perf_counter()
        if len(outcomes) > 1:
            results = fuse(found, request.k, weights=self._weights, fusion=self._fusion)
        else:
            ((name, hits),) = found.items()
            results = alone(name, hits, request.k)
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
                fuse=since(fusing),
                total=since(request.begun),
            ),
        )
