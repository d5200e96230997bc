"""Whether a worker is alive (its pipeline moves) and ready (what it needs answers)."""

import time
from collections.abc import Callable, Mapping
from threading import Lock, get_ident

from bartizan_connector.base.errors import Retry
from bartizan_connector.stream.watch import Watch

STILL_SECONDS = 120.0
"""A pipeline that has not moved for so long is taken for dead."""


class Health(Watch):
    """`lags`: what the source says of its partitions, None while it knows of none; no function where it has none."""

    def __init__(
        self,
        lags: Callable[[], Mapping[str, int] | None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lags = lags
        self._clock = clock
        self._lock = Lock()
        self._moved = clock()
        self._begun = False
        self._away: dict[int, str] = {}
        """Thread → what it waits for."""

    def turns(self, preparing: int, prepared: int, writing: int) -> None:
        self._begun, self._moved = True, self._clock()

    def waits(self, error: Retry | None) -> None:
        with self._lock:
            self._moved = self._clock()
            self._away.pop(get_ident(), None)
            if error is not None:
                self._away[get_ident()] = str(error)

    def dead(self) -> str | None:
        """Why the worker should be started anew; None: it is alive, or has not begun. Opening takes what it takes, and
        what cannot be opened ends the worker."""
        if not self._begun:
            return None
        still = self._clock() - self._moved
        return f"the pipeline has not moved for {still:.0f} s" if still > STILL_SECONDS else None

    def unready(self) -> str | None:
        """What the worker waits for; None: nothing."""
        if not self._begun:
            return "the collection is being opened"
        with self._lock:
            waits = next(iter(self._away.values()), None)
        if waits is not None:
            return waits
        if self._lags is not None and self._lags() is None:
            return "the brokers have not said which partitions are ours, or do not answer"
        return self.dead()
