"""Waiting for what is unreachable: the same call again, within bounds, and each wait is told."""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

from bartizan_connector.base.errors import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")
_SLICE_SECONDS = 0.5
_END_SECONDS = 10.0
"""How long a run that was told to stop waits for what does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for something that is unreachable before giving up."""

    attempts: int = 10
    seconds: float = 120.0
    longest_wait: float = 20.0
    sleep: Callable[[float], None] | None = None
    """How to wait; None: on the clock, and no longer than the run goes on."""


ENDLESS = Patience(attempts=sys.maxsize, seconds=math.inf)
"""For who follows a source: what is away is waited for until it is back, or the run is told to stop."""


class Halted(Exception):
    """The run has ended while something was waited for."""


class Waiting:
    """Makes calls again while they say Retry, within bounds; then the last Retry is raised."""

    def __init__(
        self,
        patience: Patience,
        halt: Event,
        *,
        stop: Event | None = None,
        told: Callable[[Retry | None], None] | None = None,
    ) -> None:
        self._patience = patience
        self._halt = halt
        self._stop = stop or Event()
        """Once it is set, what has not answered for a while is tried once more and then given up."""
        self._told = told

    def __call__(self, call: Callable[[], T]) -> T:
        patience = self._patience
        bounds = stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds)
        retrying = Retrying(
            retry=retry_if_exception_type(Retry),
            stop=lambda state: bounds(state) or self._is_over(state),
            wait=lambda state: _wait(state, patience.longest_wait),
            sleep=self._sleep,
            before_sleep=self._say_wait,
            reraise=True,
        )
        waited = False

        def attempt() -> T:
            nonlocal waited
            try:
                return call()
            except Retry:
                waited = True
                raise

        try:
            return retrying(attempt)
        finally:
            if waited and self._told is not None:
                self._told(None)

    def pause(self, seconds: float) -> None:
        """Wait so long, but no longer than the run goes on, and than it takes until it is told to stop."""
        self._sleep(seconds)

    def _is_over(self, state: RetryCallState) -> bool:
        return self._stop.is_set() and (state.seconds_since_start or 0.0) > _END_SECONDS

    def _sleep(self, seconds: float) -> None:
        if self._patience.sleep is None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not self._halt.wait(min(left, _SLICE_SECONDS)):
                if self._stop.is_set():
                    break
        else:
            self._patience.sleep(seconds)
        if self._halt.is_set():
            raise Halted

    def _say_wait(self, state: RetryCallState) -> None:
        wait, error = state.next_action.sleep if state.next_action else 0.0, _failure(state)
        log.warning("%s; trying again in %.1f s (attempt %d failed)", error, wait, state.attempt_number)
        if self._told is not None:
            self._told(error)


def _wait(state: RetryCallState, longest: float) -> float:
    asked = _failure(state).after
    return min(max(asked, 0.25 * 2.0 ** min(state.attempt_number, 20)), max(asked, longest))


def _failure(state: RetryCallState) -> Retry:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Retry)
    return error
