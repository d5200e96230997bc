"""Lets a store hear of its writer also while nothing is written: a silent source, or one that is away, is no end."""

import logging
import math
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor
from threading import Event, Thread

from bartizan_connector.base.errors import Retry

log = logging.getLogger(__name__)
_FIRST_SECONDS = 1.0
"""A run that is over before was heard of when it claimed."""
_LEAST_SECONDS = 0.5
_AWAY_SECONDS = 5.0
"""Until the next try where the store did not answer."""


class Renewing:
    """`renew` is called by the thread that writes, in turn with what is written; it says in how many seconds again."""

    def __init__(self, renew: Callable[[], float], writing: Executor) -> None:
        self._renew = renew
        self._writing = writing
        self._ended = Event()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="bartizan-renew", daemon=True)

    def begin(self) -> None:
        """From now on."""
        self._thread.start()

    def end(self) -> None:
        """No more, once the writing thread has ended."""
        self._ended.set()
        self._writing.shutdown(wait=True, cancel_futures=True)
        if self._thread.ident is not None:
            self._thread.join()

    def require(self) -> None:
        """Raise what became of it: another writes by now, say, and nothing may be written any more."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        seconds = _FIRST_SECONDS
        while seconds < math.inf and not self._ended.wait(max(seconds, _LEAST_SECONDS)):
            try:
                seconds = self._writing.submit(self._renewed).result()
            except (CancelledError, RuntimeError) as error:
                if not self._ended.is_set():  # else that is why
                    self._failure = error
                return

    def _renewed(self) -> float:
        try:
            return self._renew()
        except Retry as error:
            log.debug("the store did not hear of its writer: %s", error)
            return _AWAY_SECONDS
        except Exception as error:  # noqa: BLE001  raised by `require`
            self._failure = error
            return math.inf
