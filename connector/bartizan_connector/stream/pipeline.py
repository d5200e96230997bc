"""Moves batches from step to step: asking for heads, encoding and writing go on at once, each for another batch.

Reading, and whatever else is asked of the source, is done by the thread that called `run`. A batch is read when the one
before it has got as far as its encoding, or behind one that is encoded: so the heads of the next are there when the
towers are free, and what arrives meanwhile goes into one batch, instead of into many small ones, each of which would
cost the store as much and wait for all those before it. For the same reason none is read behind one that waits for its
write, unless batches come full, so that more is there than was taken in.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.pace import Pace
from bartizan_connector.stream.patience import Halted, Waiting
from bartizan_connector.stream.renewing import Renewing
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Message, Noting, Sized, Source
from bartizan_connector.stream.steps import Steps
from bartizan_connector.stream.unsealed import Unsealed
from bartizan_connector.stream.watch import Watch

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5
"""How long to wait for messages, or for a step to end, before looking at the rest again."""
_LEAVE_SECONDS = 3.0
"""How long the group waits for a partition to be left at the store, which only spares its next owner a wait."""
_SEAL_SECONDS = 10.0
"""The same for what was written of it to be sealed, without which the next owner writes it once more."""
_DRY_SECONDS = 0.05
"""The same where the source had nothing, but batches are in flight."""


class Pipeline:
    """Moves the batches from step to step. All but the steps themselves is done in the caller's thread."""

    def __init__(
        self,
        source: Source,
        steps: Steps,
        waiting: Waiting,
        halt: Event,
        stop: Event,
        on_batch: Callable[[Report], None] | None,
        on_ids: Callable[[Sequence[str]], None] | None,
        watch: Watch,
        pace: Pace | None,
        in_flight: int,
    ) -> None:
        self._source = source
        self._steps = steps
        self._waiting = waiting
        self._halt = halt
        self._stop = stop
        self._unsealed: Unsealed | None = None
        """What is committed later than it is written; None: nothing."""
        if steps.needs_seal and isinstance(source, Noting):
            self._unsealed = Unsealed(source, steps.seal, waiting, stop, self._reads)
        self._on_batch = on_batch
        self._on_ids = on_ids
        self._watch = watch
        self._pace = pace
        self._in_flight = in_flight
        self._looking = ThreadPoolExecutor(1, "bartizan-look")
        self._preparing = ThreadPoolExecutor(1, "bartizan-prepare")
        self._writing = ThreadPoolExecutor(1, "bartizan-write")
        self._renewing = Renewing(steps.renew, self._writing)
        self._ended_steps: SimpleQueue[tuple[ThreadPoolExecutor, Flight, Future[None]]] = SimpleQueue()
        self._flights: deque[Flight] = deque()
        """In the order they were read."""
        self._prepared: deque[Flight] = deque()
        self._is_behind = True
        """Whether the newest batch was full, so that more is likely to be there."""
        self._written: Flight | None = None
        """The one that is being written."""
        self._lost: dict[str, int] = {}
        """Partition → the newest assignment that is known to be over."""
        self._failure: BaseException | None = None
        self._total = Report()
        self._last = time.perf_counter()
        self._looked = time.monotonic()
        """When it was last asked whether what is in flight is still ours."""

    def run(self) -> Report:
        """Until the source has ended, or until it shall stop, and nothing is in flight."""
        self._renewing.begin()
        try:
            while True:
                self._renewing.require()
                self._tell_turn()
                self._see_to_seals()
                if self._reads() and self._has_room() and not self._source.ended:
                    came = self._read(0.0 if self._flights else _IDLE_SECONDS)
                    self._react(0.0 if came or not self._flights else _DRY_SECONDS)
                elif self._flights:
                    self._react(_IDLE_SECONDS)
                elif self._unsealed:
                    self._see_to_seals(ends=True)
                    self._unsealed.wait(_IDLE_SECONDS)
                else:
                    break
        except Halted:  # while something was waited for in this thread, a step failed for good
            raise self._what_failed() from None
        if self._failure is not None:
            raise self._failure
        return self._total

    def settle(self, partition: str) -> None:
        """For a source that is about to give a partition up: what is being written of it is finished and committed,
        unless the source gives it up before, and the rest is dropped."""
        mine = [flight for flight in self._flights if flight.batch.partition == partition]
        for flight in mine:
            if flight is not self._written:
                self._lose(flight)
        while (written := self._written) is not None and written in mine:
            ended = self._next_ended(_IDLE_SECONDS)
            if ended is None and not written.lost and not self._is_owned(written):
                return
            if ended is not None and ended[0] is self._writing and ended[2].exception() is not None:
                self._ended_steps.put(ended)  # told by whoever waits for the batch, not from within the source
                return
            if ended is not None:
                try:
                    self._go_on(*ended)
                except Exception as error:  # noqa: BLE001  raised by `run`, not into the source's own call
                    self._give_up_from(ended[1], error)
        if self._unsealed:
            try:
                self._unsealed.settle(partition, _SEAL_SECONDS, self._partition_written)
            except BartizanError as error:  # raised by `run`, not into the source's own call
                self._failure = self._failure or error
        leaving = self._writing.submit(self._steps.leave_part, partition)
        with suppress(BartizanError, TimeoutError):
            leaving.result(_LEAVE_SECONDS)
        leaving.cancel()

    def end(self) -> None:
        """Let the step that is being done end, and no other begin."""
        self._halt.set()
        for steps in (self._looking, self._preparing):
            steps.shutdown(wait=True, cancel_futures=True)
        if self._unsealed is not None:
            self._unsealed.end()
        self._renewing.end()

    def _see_to_seals(self, *, ends: bool = False) -> None:
        if self._unsealed is not None:
            self._unsealed.see(rests=not self._flights, ends=ends, writes=self._partition_written)

    @property
    def _partition_written(self) -> str:
        """Of what is being written."""
        return self._written.batch.partition if self._written is not None else ""

    def _reads(self) -> bool:
        """Whether this run takes in any more."""
        return self._failure is None and not self._stop.is_set()

    def _has_room(self) -> bool:
        """Whether another batch may be read."""
        steps = [flight.step for flight in self._flights]
        if len(steps) >= self._in_flight or "look" in steps or steps.count("prepare") > 1:
            return False
        return self._is_behind or "prepared" not in steps

    def _read(self, timeout: float) -> bool:
        """Take in the next batch, and say whether there was one."""
        started = time.perf_counter()
        batch = self._waiting(lambda: self._source.poll(timeout))
        if batch is None:
            return False
        self._is_behind = not isinstance(self._source, Sized) or len(batch.messages) >= self._source.batch_size
        flight = Flight(batch=batch, lost=batch.generation <= self._lost.get(batch.partition, -1))
        flight.decode(self._steps.collection, self._steps.cut)
        flight.seconds["read"] += time.perf_counter() - started
        self._flights.append(flight)
        self._begin(self._looking, self._steps.look, flight)
        return True

    def _begin(self, thread: ThreadPoolExecutor, step: Callable[[Flight], None], flight: Flight) -> None:
        thread.submit(step, flight).add_done_callback(lambda future: self._end_step(thread, flight, future))

    def _end_step(self, thread: ThreadPoolExecutor, flight: Flight, future: Future[None]) -> None:
        """Called in the step's own thread."""
        if not future.cancelled():
            self._ended_steps.put((thread, flight, future))
            if thread is self._writing and future.exception() is not None:
                self._halt.set()

    def _react(self, seconds: float) -> None:
        """See to the steps that have ended; wait for the first one for so long."""
        ended = self._next_ended(seconds)
        while ended is not None:
            self._go_on(*ended)
            ended = self._next_ended(0.0)
        if time.monotonic() - self._looked >= _IDLE_SECONDS:
            self._looked = time.monotonic()
            for flight in list(self._flights):
                self._is_owned(flight)

    def _next_ended(self, seconds: float) -> tuple[ThreadPoolExecutor, Flight, Future[None]] | None:
        try:
            return self._ended_steps.get(block=seconds > 0, timeout=seconds or None)
        except Empty:
            return None

    def _go_on(self, thread: ThreadPoolExecutor, flight: Flight, future: Future[None]) -> None:
        error = future.exception()
        if thread is self._writing:
            if error is not None:
                raise error
            self._written = None
            self._watch.written(flight)
            self._write_next()
            self._commit(flight)
        elif error is not None:
            self._give_up_from(flight, error)
        elif flight not in self._flights:
            return
        elif thread is self._looking:
            flight.step = "prepare"
            self._begin(self._preparing, self._steps.prepare, flight)
        else:
            flight.step = "prepared"
            self._prepared.append(flight)
            self._write_next()

    def _give_up_from(self, flight: Flight, error: BaseException) -> None:
        """The batches ahead, which are encoded already, are still written; then the error is raised."""
        self._failure = self._failure or error
        while flight in self._flights:
            self._flights.pop().lost = True

    def _write_next(self) -> None:
        while self._prepared and self._written is None:
            flight = self._prepared.popleft()
            if self._is_owned(flight) and self._is_noted(flight):
                self._written, flight.step = flight, "write"
                self._begin(self._writing, self._write, flight)
            else:
                self._leave(flight)

    def _is_noted(self, flight: Flight) -> bool:
        """Whether it may be written, once the source knows that it will be."""
        if self._unsealed is None:
            return True
        with flight.timed("commit"):
            self._unsealed.note(flight.batch)
        return self._is_owned(flight)

    def _write(self, flight: Flight) -> None:
        self._renewing.require()
        self._steps.write(flight)

    def _commit(self, flight: Flight) -> None:
        """Step 6, where the store does not seal; else the batch is left to that."""
        if self._is_owned(flight):
            with flight.timed("commit"):
                for message, reason in flight.dead:
                    self._set_aside(message, reason)
                if self._unsealed is not None:
                    self._unsealed.add(flight.batch)
                else:
                    self._waiting(lambda: self._source.commit(flight.batch))
        self._leave(flight)

    def _set_aside(self, message: Message, reason: str) -> None:
        self._waiting(lambda: self._source.dead_letter(message, reason))

    def _is_owned(self, flight: Flight) -> bool:
        """Whether the batch may go on; where not, none of its assignment may."""
        batch = flight.batch
        if not flight.lost and not self._waiting(lambda: self._source.owns(batch)):
            for other in self._flights:
                if other.batch.partition == batch.partition and other.batch.generation <= batch.generation:
                    self._lose(other)
            log.warning(
                "partition %s is read again, here or elsewhere; its batches are dropped", batch.partition or "?"
            )
        return not flight.lost

    def _lose(self, flight: Flight) -> None:
        flight.lost = True
        batch = flight.batch
        self._lost[batch.partition] = max(batch.generation, self._lost.get(batch.partition, batch.generation))

    def _leave(self, flight: Flight) -> None:
        """The batch is done with: count it, unless it was given up with those ahead of it."""
        if flight not in self._flights:
            return
        self._flights.remove(flight)
        self._steps.forget(flight)
        now = time.perf_counter()
        share = replace(flight.report(), seconds=now - self._last)
        self._last = now
        self._total += share
        log.info("%s", _told(flight, share))
        self._watch.left(flight, share, self._paced(flight))
        if self._on_batch is not None:
            self._on_batch(share)
        if self._on_ids is not None and not flight.lost:
            self._on_ids(flight.named)

    def _paced(self, flight: Flight) -> int:
        """The size of the batches to come; 0 where the source decides."""
        if self._pace is None or not isinstance(self._source, Sized):
            return 0
        if not flight.lost:
            slowest = max(flight.seconds.get(step, 0.0) for step in ("encode", "write"))
            self._source.batch_size = self._pace.took(len(flight.batch.messages), slowest)
        return self._source.batch_size

    def _tell_turn(self) -> None:
        prepared, writing = len(self._prepared), int(self._written is not None)
        self._watch.turns(len(self._flights) - prepared - writing, prepared, writing)

    def _what_failed(self) -> BaseException:
        """The error of the step that ended the run."""
        while True:
            error = self._ended_steps.get()[2].exception()
            if error is not None and not isinstance(error, Halted):
                return error


def _told(flight: Flight, share: Report) -> str:
    """What became of a batch, in a line."""
    kinds = ("written", "unchanged", "stale", "deleted", "dead", "dropped")
    counts = ", ".join(f"{count:,} {kind}" for kind in kinds if (count := getattr(share, kind)))
    messages = flight.batch.messages
    which = f"{messages[0].position} to {messages[-1].position}" if messages else "an empty batch"
    return f"{which}: {counts} ({share.seconds:.1f} s)"
