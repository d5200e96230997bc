"""A thread that looks at something every few seconds, and at once when it is asked to."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread

from bartizan_connector.search.forks import anew_when_forked

log = logging.getLogger(__name__)
_LONGEST = 1e6
"""Seconds; a wait that is much longer is none that the system can make."""


class Lookout:
    """Calls `look` every `every` seconds, one call at a time, until it is closed. Whoever asks shares the next call
    with all that ask before it begins. A process that is forked has no such thread: it gets one by `awake`."""

    def __init__(self, look: Callable[[], None], every: float) -> None:
        self._look = look
        self._every = min(every, _LONGEST)
        self._closed = False
        self._thread: Thread | None = None
        self.begin_anew()
        anew_when_forked(self)
        self.awake()

    def awake(self) -> None:
        """See that there is somebody who looks."""
        if self._thread is None:
            with self._changed:
                if self._thread is None and not self._closed:
                    self._thread = Thread(target=self._watch, name="bartizan-lookout", daemon=True)
                    self._thread.start()

    def now(self) -> "Future[None]":
        """Done when a look has ended that began after this call; at once where there will be no other."""
        self.awake()
        future: Future[None] = Future()
        with self._changed:
            if not self._closed:
                self._asked.append(future)
                self._changed.notify()
                return future
        future.set_result(None)
        return future

    def close(self) -> None:
        """Look no more; a look that is under way ends first."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def begin_anew(self) -> None:
        """Nobody looks, and nobody has asked."""
        self._changed = Condition()
        self._asked: list[Future[None]] = []
        self._thread = None

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._closed, self._every)
                asked, self._asked = self._asked, []
                last = self._closed
            if not last:
                try:
                    self._look()
                except Exception:  # what nobody foresaw in one look must not end all others
                    log.exception("a look failed")
            for future in asked:
                if future.set_running_or_notify_cancel():
                    future.set_result(None)
            if last:
                return
