"""Legs: the calls of each leg in threads of its own, so that one that hangs holds up no other."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from bartizan_connector.base.errors import Retry
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Hit

THREADS = 8
"""Calls of one leg at a time; more wait for a free thread, within their own deadline."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one leg gave, or why it gave nothing."""

    hits: list[Hit] | None
    milliseconds: float
    vectors: Vectors | None = None
    encode_milliseconds: float = 0.0
    failure: Retry | None = None


class LegThreads:
    """The threads of one leg. A thread cannot be stopped: a call that hangs keeps its own until it ends."""

    def __init__(self, name: str, threads: int = THREADS) -> None:
        self._name = name
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"bartizan-{name}")
        self._lock = Lock()
        self._running: dict[object, float] = {}
        """The deadline of each call that has a thread."""

    def submit(self, call: Callable[[], T], deadline: float) -> "Future[T]":
        """Start the call; it fails with Retry at once when every thread is held by a call past its own deadline."""
        now = time.perf_counter()
        with self._lock:
            hanging = sum(each < now for each in self._running.values())
        if hanging >= self._threads:
            refused: Future[T] = Future()
            refused.set_exception(
                Retry(f"the {self._name} leg hangs: {hanging} earlier calls are past their deadline and have not ended")
            )
            return refused
        return self._pool.submit(self._run, call, deadline)

    def close(self) -> None:
        """Take no more calls; what waits is dropped, what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: Callable[[], T], deadline: float) -> T:
        mark = object()
        with self._lock:
            self._running[mark] = deadline
        try:
            return call()
        finally:
            with self._lock:
                del self._running[mark]


def finished(futures: "Mapping[str, Future[Outcome]]", deadline: float) -> dict[str, Outcome]:
    """What each leg gave by the deadline; what waits for a thread still is taken out of the line."""
    outcomes = {}
    for name, future in futures.items():
        begun = time.perf_counter()
        try:
            outcomes[name] = future.result(timeout=left(deadline))
        except FutureTimeout:
            future.cancel()
            outcomes[name] = _late(name, begun)
        except Retry as error:
            outcomes[name] = Outcome(None, since(begun), failure=error)
    return outcomes


async def afinished(tasks: "Mapping[str, asyncio.Task[Outcome]]", deadline: float) -> dict[str, Outcome]:
    """The same without blocking the event loop; cancelled, it cancels the legs too."""
    begun = time.perf_counter()
    try:
        await asyncio.wait(tasks.values(), timeout=left(deadline))
        done = {name: task for name, task in tasks.items() if task.done()}
        failures = [error for task in done.values() if (error := task.exception())]  # each is looked at, one is raised
        if failures:
            raise failures[0]
        return {name: done[name].result() if name in done else _late(name, begun) for name in tasks}
    finally:
        for task in tasks.values():
            task.cancel()


def left(deadline: float) -> float:
    """Seconds until the deadline, never nothing: no engine takes a timeout of 0."""
    return max(0.001, deadline - time.perf_counter())


def since(begun: float) -> float:
    """Milliseconds."""
    return (time.perf_counter() - begun) * 1000


def _late(name: str, begun: float) -> Outcome:
    failure = Retry(f"the {name} leg had not answered by the deadline", after=0.0)
    return Outcome(None, since(begun), failure=failure)
