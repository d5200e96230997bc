"""Batches that are written and not durable yet: the store seals them together, and then they are committed together.

Of each assignment of a partition only the newest batch is kept, and of that its last message: a commit speaks for all
that was written before it. A seal runs in a thread of its own, while others are written; it covers what was written
before it began, and the next one covers the rest. All else is done in the caller's thread.
"""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from threading import Event

from bartizan_connector.base.errors import Forgotten, Retry
from bartizan_connector.stream.patience import Waiting
from bartizan_connector.stream.source import Batch, Noting, Source

log = logging.getLogger(__name__)

_LONGEST_SECONDS = 10.0
"""So long what is written waits for its seal while more is written."""
_RESTS_SECONDS = 1.0
"""The same where nothing is in flight, and the last seal was longer ago than that: each one makes the server one small
segment more, and newer ones refuse more than one in ten seconds."""
_LOOK_SECONDS = 0.2
_LATER = "a topic's worker reads it again in the next run; after files, look with `bartizan verify`"
Kept = dict[tuple[str, int], Batch]
"""Partition and assignment → the newest batch of it."""


class Unsealed:
    """Between the write and the commit."""

    def __init__(
        self, source: Source, seal: Callable[[], None], waiting: Waiting, stop: Event, goes_on: Callable[[], bool]
    ) -> None:
        """`goes_on`: whether what is given again will still be read by this run."""
        assert isinstance(source, Noting)
        self._source: Source = source
        self._noting: Noting = source
        self._seal = seal
        self._waiting = waiting
        self._stop = stop
        self._goes_on = goes_on
        self._thread = ThreadPoolExecutor(1, "bartizan-seal")
        self._kept: Kept = {}
        self._since = 0.0
        """When the first of them was written."""
        self._covered: Kept = {}
        """What the seal that is going on is about."""
        self._began = -math.inf
        """When the last seal did."""
        self._going: Future[Forgotten | None] | None = None

    def __bool__(self) -> bool:
        return bool(self._kept or self._covered)

    def note(self, batch: Batch) -> None:
        """It is about to be written."""
        if batch.messages:
            self._waiting(lambda: self._noting.note(batch))

    def add(self, batch: Batch) -> None:
        """It is written."""
        if batch.messages:
            self._since = self._since if self._kept else time.monotonic()
            self._kept[batch.partition, batch.generation] = replace(batch, messages=batch.messages[-1:])

    def see(self, *, rests: bool, ends: bool = False, writes: str = "") -> None:
        """Commit what is sealed, and begin a seal when it is time: at once where the run `ends`. `writes`: the
        partition of which something is being written."""
        if self._going is not None and self._going.done():
            self._conclude(self._going, writes)
        now = time.monotonic()
        age, rests = now - self._since, rests and now - self._began >= _LONGEST_SECONDS
        is_due = ends or age >= _LONGEST_SECONDS or (rests and age >= _RESTS_SECONDS)
        if self._going is None and self._kept and is_due:
            self._began = now
            self._covered, self._kept = self._kept, {}
            self._going = self._thread.submit(self._waiting, self._sealed)

    def wait(self, seconds: float) -> None:
        """For the seal that is going on, at most so long."""
        if self._going is not None:
            wait_for([self._going], seconds)

    def settle(self, partition: str, seconds: float, writes: str) -> None:
        """Have what was written of a partition committed before it goes; what does not get there in time is doubtful to
        its next owner."""
        deadline = time.monotonic() + seconds
        while any(name == partition for name, _ in (*self._kept, *self._covered)):
            self.see(rests=False, ends=True, writes=writes)
            if time.monotonic() > deadline:
                return
            self.wait(_LOOK_SECONDS)

    def end(self) -> None:
        """Let the seal that is going on end, whatever comes of it."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self:  # the run has failed
            log.warning("what was written last is not known to be sealed: %s", _LATER)

    def _sealed(self) -> Forgotten | None:
        try:
            self._seal()
        except Forgotten as error:  # to call it again would not bring it back
            return error
        return None

    def _conclude(self, going: Future[Forgotten | None], writes: str) -> None:
        covered, self._covered, self._going = self._covered, {}, None
        try:
            forgotten = going.result()
        except Retry as error:
            if not self._stop.is_set():
                raise
            log.warning("what was written last could not be sealed (%s): %s", error, _LATER)
            self._kept.clear()
            return
        if forgotten is not None:
            self._give_again({name for name, _ in (*covered, *self._kept)} | ({writes} if writes else set()), forgotten)
            return
        for batch in covered.values():
            if self._waiting(lambda batch=batch: self._source.owns(batch)):  # type: ignore[misc]
                self._waiting(lambda batch=batch: self._source.commit(batch))  # type: ignore[misc]

    def _give_again(self, partitions: set[str], why: Forgotten) -> None:
        self._kept.clear()
        if not self._goes_on():
            log.warning("%s: %s", why, _LATER)
            return
        log.warning("%s: %s is read again", why, ", ".join(sorted(partitions)))
        for partition in partitions:
            self._noting.give_again(partition)
