"""Legs: each looks for a query in its own way, in threads of its own, and says how far it came.

A leg of vectors: open what it needs → encode → search its store. The lexical leg: open → search the words.
"""

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from bartizan_connector.base.errors import BartizanError, NotAText, Retry, SpaceMismatch, Stop
from bartizan_connector.config.settings import OfDocument
from bartizan_connector.encode.answers import check_answer, trusting
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.search.distinct import documents
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.request import Request
from bartizan_connector.search.threads import LegThreads
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Hit
from bartizan_connector.store.filters import Filter

log = logging.getLogger(__name__)
AnyFuture = Future[list[Hit]] | asyncio.Future[list[Hit]]


class Lexical(Protocol):
    """The lexical leg: a library's index, or a call-back into the search stack that hosts us."""

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]: ...


class Late(Retry):
    """A leg that had not answered by the deadline."""


class Unforeseen(Stop):
    """What a library raised and nobody had thought of."""


@dataclass(slots=True)
class Attempt:
    """How far one leg has come with one query; kept by whichever thread is at work."""

    step: str = "wait"
    """For a thread; then `open`, `encode`, `search`; then `end`."""
    since: float = field(default_factory=time.perf_counter)
    milliseconds: dict[str, float] = field(default_factory=dict)
    """What each step took."""
    vectors: Vectors | None = None
    hits: list[Hit] | None = None
    failure: BartizanError | None = None
    failed_in: str = ""
    """The step that failed, or that was not done by the deadline."""

    def enter(self, step: str) -> None:
        """The step before is done."""
        now = time.perf_counter()
        self.milliseconds[self.step] = self.milliseconds.get(self.step, 0.0) + (now - self.since) * 1000
        self.step, self.since = step, now

    @property
    def searching(self) -> float:
        """Milliseconds of the search; of a leg that failed, all it took."""
        return sum(self.milliseconds.values()) if self.hits is None else self.milliseconds["search"]


class Leg:
    """What every leg has: threads of its own, its failures named, one remark for each that lasts."""

    def __init__(self, name: str, of_document: OfDocument) -> None:
        self.name = name
        self._of_document = of_document
        self._threads = LegThreads(name)
        self._failing = False

    def begin(self, request: Request, depth: int, attempt: Attempt, *, blocking: bool) -> "AnyFuture":
        """Start to look for the query. With `blocking` there is no event loop: all is done in the leg's thread."""
        return self._threads.submit(partial(self._find, request, depth, attempt), request.deadline)

    def failure_of(self, error: BaseException) -> BartizanError:
        """Why the leg gave nothing. Raises what no other leg may make good: the query is no text, or two spaces would
        have met."""
        if isinstance(error, SpaceMismatch | NotAText):
            raise error
        if isinstance(error, BartizanError):
            return error
        if not isinstance(error, Exception):
            raise error
        what = " ".join(f"{type(error).__name__}: {error}".split())
        failure = Unforeseen(f"the {self.name} leg failed: {what}")
        failure.__cause__ = error
        return failure

    def remark(self, failure: BartizanError | None) -> None:
        """Say in the log that the leg fails: when it begins to, not at every query."""
        if failure is None:
            self._failing = False
        elif not self._failing:
            self._failing = True
            details = failure.__cause__ if isinstance(failure, Unforeseen) else None
            log.warning("no %s leg: %s", self.name, failure, exc_info=details)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.close()

    def _find(self, request: Request, depth: int, attempt: Attempt) -> list[Hit]:
        raise NotImplementedError


class VectorLeg(Leg):
    """A leg of the collection, searched by one tower's vectors."""

    def __init__(self, name: str, encoder: Lazy[Encoder], store: Lazy[Store], of_document: OfDocument) -> None:
        super().__init__(name, of_document)
        self._encoder = encoder
        self._store = store

    def begin(self, request: Request, depth: int, attempt: Attempt, *, blocking: bool) -> "AnyFuture":
        """An encoder that says `natively_async` is awaited in the caller's event loop; any other blocks."""
        if blocking or not getattr(self._encoder.value, "natively_async", False):
            return super().begin(request, depth, attempt, blocking=blocking)
        return asyncio.ensure_future(self._afind(request, depth, attempt))

    def close(self) -> None:
        super().close()
        self._encoder.close()

    def _find(self, request: Request, depth: int, attempt: Attempt) -> list[Hit]:
        attempt.enter("open")
        with self._encoder.use() as encoder:
            attempt.enter("encode")
            with trusting(encoder.spec):
                vectors = encoder.encode([request.query], "query", timeout=left(request.deadline))
            attempt.vectors = check_answer(vectors, encoder.spec, 1)
        return self._search(request, depth, attempt, attempt.vectors)

    async def _afind(self, request: Request, depth: int, attempt: Attempt) -> list[Hit]:
        """As `_find`, but no thread is held while the encoder waits for somebody."""
        with self._encoder.use() as encoder:
            attempt.enter("encode")
            with trusting(encoder.spec):
                vectors = await encoder.aencode([request.query], "query", timeout=left(request.deadline))
            attempt.vectors = check_answer(vectors, encoder.spec, 1)
        search = partial(self._search, request, depth, attempt, attempt.vectors)
        return await asyncio.wrap_future(self._threads.submit(search, request.deadline))

    def _search(self, request: Request, depth: int, attempt: Attempt, vectors: Vectors) -> list[Hit]:
        attempt.enter("open")
        with self._store.use() as store:
            attempt.enter("search")

            def ask(rows: int, filter: Filter | None) -> list[Hit]:
                return store.search(self.name, vectors, rows, filter, timeout=left(request.deadline))[0]

            hits = documents(ask, depth, request.filter, self._of_document)
        attempt.enter("end")
        return hits


class LexicalLeg(Leg):
    """The words."""

    def __init__(self, name: str, words: Lazy[Lexical], of_document: OfDocument) -> None:
        super().__init__(name, of_document)
        self._words = words

    def close(self) -> None:
        super().close()
        self._words.close()

    def _find(self, request: Request, depth: int, attempt: Attempt) -> list[Hit]:
        attempt.enter("open")
        with self._words.use() as words:
            attempt.enter("search")

            def ask(rows: int, filter: Filter | None) -> list[Hit]:
                return words.search(request.query, rows, filter, timeout=left(request.deadline))

            hits = documents(ask, depth, request.filter, self._of_document)
        attempt.enter("end")
        return hits


async def found(legs: Sequence[Leg], request: Request, depth: int, *, blocking: bool) -> dict[str, Attempt]:
    """What each leg gave by the deadline, side by side. With `blocking` it waits in the caller's thread and never
    suspends; without, cancelling it drops what waits."""
    attempts = {leg.name: Attempt() for leg in legs}
    futures: dict[str, AnyFuture] = {}
    try:
        for leg in legs:
            futures[leg.name] = leg.begin(request, depth, attempts[leg.name], blocking=blocking)
        await _finished(futures, request.deadline, blocking=blocking)
        for leg in legs:
            attempt, future = attempts[leg.name], futures[leg.name]
            if not future.done():
                attempt = attempts[leg.name] = _late(leg.name, attempt)
            elif error := future.exception():
                attempt.failed_in = attempt.step
                attempt.failure = leg.failure_of(error)
                attempt.enter("end")
            else:
                attempt.hits = future.result()
            leg.remark(attempt.failure)
        return attempts
    finally:
        for future in futures.values():
            future.cancel()


async def _finished(futures: dict[str, "AnyFuture"], deadline: float, *, blocking: bool) -> None:
    """Wait for all, to the deadline; in an event loop they become its futures."""
    if blocking:
        concurrent.futures.wait([each for each in futures.values() if isinstance(each, Future)], left(deadline))
        return
    for name, future in futures.items():
        if isinstance(future, Future):
            futures[name] = asyncio.wrap_future(future)
    await asyncio.wait([each for each in futures.values() if isinstance(each, asyncio.Future)], timeout=left(deadline))


def left(deadline: float) -> float:
    """Seconds until the deadline, never nothing: no engine takes a timeout of 0."""
    return max(0.001, deadline - time.perf_counter())


def _late(name: str, attempt: Attempt) -> Attempt:
    """The attempt as it stands at the deadline; its own thread may go on with the other."""
    opening = " (it was still being opened)" if attempt.step == "open" else ""
    failure = Late(f"the {name} leg had not answered by the deadline{opening}", after=0.0)
    took = dict(attempt.milliseconds)
    late = Attempt(attempt.step, attempt.since, took, attempt.vectors, failure=failure, failed_in=attempt.step)
    late.enter("end")
    return late
