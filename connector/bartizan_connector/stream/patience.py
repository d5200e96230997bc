"""Waiting for what is unreachable: the same call again, within bounds, and each wait is told."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

from bartizan_connector.base.errors import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for something that is unreachable before giving up."""

    attempts: int = 10
    seconds: float = 120.0
    longest_wait: float = 20.0
    sleep: Callable[[float], None] | None = None
    """How to wait; None: on the clock, and no longer than the run goes on."""


class Halted(Exception):
    """The run has ended while something was waited for."""


class Waiting:
    """Makes calls again while they say Retry, within bounds; then the last Retry is raised."""

    def __init__(self, patience: Patience, halt: Event) -> None:
        self._patience = patience
        self._halt = halt

    def __call__(self, call: Callable[[], T]) -> T:
        patience = self._patience
        retrying = Retrying(
            retry=retry_if_exception_type(Retry),
            stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
            wait=lambda state: _wait(state, patience.longest_wait),
            sleep=self._sleep,
            before_sleep=_say_wait,
            reraise=True,
        )
        return retrying(call)

    def _sleep(self, seconds: float) -> None:
        if self._patience.sleep is None:
            self._halt.wait(seconds)
        else:
            self._patience.sleep(seconds)
        if self._halt.is_set():
            raise Halted


def _wait(state: RetryCallState, longest: float) -> float:
    asked = _failure(state).after
    return min(max(asked, 0.25 * 2.0**state.attempt_number), max(asked, longest))


def _say_wait(state: RetryCallState) -> None:
    wait = state.next_action.sleep if state.next_action else 0.0
    log.warning("%s; trying again in %.1f s (attempt %d failed)", _failure(state), wait, state.attempt_number)


def _failure(state: RetryCallState) -> Retry:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Retry)
    return error
