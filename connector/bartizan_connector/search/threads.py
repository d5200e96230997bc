"""Daemon threads of one leg: a call that hangs holds up no other leg, and never the end of the process."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.search.forks import anew_when_forked

THREADS = 8
"""Calls of one leg at a time; more wait for a free thread, within their own deadline."""
_IDLE_SECONDS = 60.0
"""How long a thread waits for its next call before it ends."""
T = TypeVar("T")
_Job = tuple["Future[Any]", Callable[[], Any], float]


class LegThreads:
    """The threads of one leg, begun when they are needed. A thread cannot be stopped: a call that hangs keeps its own
    until it ends."""

    def __init__(self, name: str, threads: int = THREADS) -> None:
        self._name = name
        self._threads = threads
        self._closed = False
        self.begin_anew()
        anew_when_forked(self)

    def begin_anew(self) -> None:
        """Without threads and calls."""
        self._lock = Lock()
        self._line: SimpleQueue[_Job | None] = SimpleQueue()
        self._alive = 0
        self._free = 0
        """Threads that wait for a call, less the calls that wait in the line for them."""
        self._running: dict[object, float] = {}
        """The deadline of each call that has a thread."""

    def submit(self, call: Callable[[], T], deadline: float) -> "Future[T]":
        """Start the call; it fails with Retry at once when every thread is held by a call past its own deadline."""
        future: Future[T] = Future()
        now = time.perf_counter()
        with self._lock:
            if self._closed:
                raise WrongUse(f"the {self._name} leg is closed")
            hanging = sum(each < now for each in self._running.values())
            if hanging < self._threads:
                self._line.put((future, call, deadline))
                self._free -= 1
                if self._free < 0 and self._alive < self._threads:
                    self._alive += 1
                    self._free += 1
                    Thread(target=self._serve, name=f"bartizan-{self._name}", daemon=True).start()
                return future
        future.set_exception(
            Retry(f"the {self._name} leg hangs: {hanging} earlier calls are past their deadline and have not ended")
        )
        return future

    def close(self) -> None:
        """Take no more calls; what waits is dropped, what runs ends by itself. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while not self._line.empty():
                job = self._line.get()
                if job and job[0].set_running_or_notify_cancel():
                    job[0].set_exception(Retry(f"the {self._name} leg was closed while a call waited for a thread"))
            for _ in range(self._alive):
                self._line.put(None)

    def _serve(self) -> None:
        while True:
            try:
                job = self._line.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if not self._line.empty():
                        continue
                    self._alive -= 1
                    self._free -= 1
                return
            if job is None:
                return
            self._run(*job)
            del job  # nothing of a call is held while the thread waits for the next
            with self._lock:
                self._free += 1

    def _run(self, future: "Future[Any]", call: Callable[[], Any], deadline: float) -> None:
        if not future.set_running_or_notify_cancel():
            return
        mark = object()
        with self._lock:
            self._running[mark] = deadline
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  it is raised where the call is waited for
            self._ended(mark)
            future.set_exception(error)
        else:
            self._ended(mark)
            future.set_result(result)

    def _ended(self, mark: object) -> None:
        with self._lock:
            del self._running[mark]
