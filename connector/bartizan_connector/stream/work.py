"""The stream from a source into a collection; the order of its effects is the guarantee.

    1 read    a batch of messages; one that is no record is for the dead letters, with the reason
    2 fence   ask for the heads of its ids; drop what is not newer than they are
    3 skip    content that is stored already only advances its head
    4 encode  what is left, by the tower of every leg
    5 write   a  touch    the heads that advance, and an empty hash for each stored id whose rows are about to change
              b  upsert   rows with the vectors of all legs, then their heads
              c  delete   rows, then their heads, which remember the version
              d  words    the word index, which knows by hash what it holds; before a it is told durably which ids'
                          rows are about to change, so that the next run makes it agree about them, come what may
    6 commit  hand the dead letters over, then tell the source, which makes them durable first

A batch is one value (`Flight`) that passes through these steps. Several are in flight: while one is written, the next
is encoded and the one after it is read. Reading, and whatever else is asked of the source, is done by the thread that
called `run`; one thread prepares (2 to 4), one writes (5). Batches are written and committed in the order they were
read, and 2 and 3 are done twice: when a batch is prepared, against what is stored and what the batches ahead of it are
going to store, which is only to know what to encode; and right before it is written, against what is stored then, which
decides. So whatever became of the batches ahead (refused in part, dropped), what is written is what the steps would do
one batch after the other.

Each effect is idempotent, and a source gives again what was not committed. So a crash at any point is repaired by the
next run: before 5 nothing happened; within 5 the changes of the batch are still newer than the heads and are done
again; after 5 they are replays. Without 5a one case would be wrong: the rows of B are written over A, the crash comes
before B's head, and then A returns (in one batch with B, whose turn is over): A's old head would call it unchanged, and
B's rows would stay. The empty hash is equal to no content, so A is written. The word index comes last. What it was told
and did not get done, the next run brings up from the store before anything else, whether the change comes again or not;
and it is compared by its own hashes, so whatever else it lacks is filled in when the change comes again, as in the next
full run when it was added to a collection that is already there.

A batch whose partition went to another reader is dropped, whether before it is written or before it is committed, with
all that were read after it under the same assignment; the new owner reads them again.

One writer a collection at a time: the fence reads before it writes, so the store's lease is claimed before anything is
read (`Store.claim`), and a second run is told who writes; a writer to which nothing comes is heard of all the same
(`Renewing`). And one a partition: a source that gives a partition up in good order (`Yielding`) has the write that is
going on finished first, if the store answers in time; what is not is the next owner's to do.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event

from bartizan_connector.base.errors import BartizanError, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.pace import SECONDS, Pace
from bartizan_connector.stream.patience import Halted, Patience, Waiting
from bartizan_connector.stream.renewing import Renewing
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Message, Shared, Sized, Source, Yielding
from bartizan_connector.stream.steps import Steps
from bartizan_connector.stream.towers import Towers, check_towers
from bartizan_connector.stream.watch import NOBODY, Watch
from bartizan_connector.stream.words import Words, agree

log = logging.getLogger(__name__)

IN_FLIGHT = 4
"""Batches: one that is written, one that is encoded, and one waiting for each."""
_IDLE_SECONDS = 0.5
"""How long to wait for messages, or for a step to end, before looking at the rest again."""
_LEAVE_SECONDS = 3.0
"""How long the group waits for a partition to be left at the store, which only spares its next owner a wait."""
_DRY_SECONDS = 0.05
"""The same where the source had nothing, but batches are in flight."""


def run(
    source: Source,
    encoders: Mapping[str, Encoder],
    backend: Backend,
    collection: Collection,
    *,
    words: Words | None = None,
    cutter: Cutter | None = None,
    patience: Patience | None = None,
    on_batch: Callable[[Report], None] | None = None,
    on_ids: Callable[[Sequence[str]], None] | None = None,
    watch: Watch = NOBODY,
    batch_seconds: float = SECONDS,
    in_flight: int = IN_FLIGHT,
    stop: Event | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Bring the collection up to what the source says, until the source has ended, or `stop` is set and what is in
    flight is committed. `encoders`: leg → its document tower. `cutter`: how long documents become chunks; without, each
    is one row. `on_batch` gets each batch's share of the report once committed, and `on_ids` the ids of the documents
    that it held, stored now or not; `watch` is told what goes on. The batches of a source that is `Sized` shall take
    `batch_seconds`.

    Retry is waited for once the collection is open (`patience`), then raised; Reject sets exactly its ids aside; Stop
    ends the run. Either way nothing is lost: what was not committed comes again in the next run. No thread is left
    when it returns or raises.
    """
    check_towers(encoders, collection)
    with closing(backend.open(collection)) as store:  # what cannot be reached at the start is told at once
        for remark in store.remarks:
            log.warning("%s", remark)
        return fill(
            store,
            source,
            encoders,
            words=words,
            cutter=cutter,
            patience=patience,
            on_batch=on_batch,
            on_ids=on_ids,
            watch=watch,
            batch_seconds=batch_seconds,
            in_flight=in_flight,
            stop=stop,
            clock=clock,
        )


def fill(
    store: Store,
    source: Source,
    encoders: Mapping[str, Encoder],
    *,
    words: Words | None = None,
    cutter: Cutter | None = None,
    patience: Patience | None = None,
    on_batch: Callable[[Report], None] | None = None,
    on_ids: Callable[[Sequence[str]], None] | None = None,
    watch: Watch = NOBODY,
    batch_seconds: float = SECONDS,
    pace: Pace | None = None,
    in_flight: int = IN_FLIGHT,
    stop: Event | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """`run` into a store that is open, and stays open. `pace`: of a source that is run again and again."""
    if in_flight < 1:
        raise WrongUse(f"in_flight = {in_flight}: at least one batch must be in flight")
    halt, stop = Event(), stop or Event()
    waiting = Waiting(patience or Patience(), halt, stop=stop, told=watch.waits)
    # a second writer is told who the first is, before it has read or encoded anything
    store.claim(source.group if isinstance(source, Shared) else "")
    if words is not None and (mended := agree(words, store, waiting)):
        log.info("the word index was made to agree about %d ids, at which an earlier run was cut off", mended)
    steps = Steps(store, words, Towers(encoders, store.collection, waiting, cutter), waiting, clock=clock)
    if isinstance(source, Sized):
        pace = pace or Pace(source.batch_size, batch_seconds)
    pipeline = _Pipeline(source, steps, waiting, halt, on_batch, on_ids, watch, pace, in_flight)
    if isinstance(source, Yielding):
        source.before_yielding(pipeline.settle)
    try:
        return pipeline.run(stop)
    finally:
        pipeline.end()


class _Pipeline:
    """Moves the batches from step to step. All but the steps themselves is done in the caller's thread."""

    def __init__(
        self,
        source: Source,
        steps: Steps,
        waiting: Waiting,
        halt: Event,
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
        self._on_batch = on_batch
        self._on_ids = on_ids
        self._watch = watch
        self._pace = pace
        self._in_flight = in_flight
        self._preparing = ThreadPoolExecutor(1, "bartizan-prepare")
        self._writing = ThreadPoolExecutor(1, "bartizan-write")
        self._renewing = Renewing(steps.renew, self._writing)
        self._ended_steps: SimpleQueue[tuple[ThreadPoolExecutor, Flight, Future[None]]] = SimpleQueue()
        self._flights: deque[Flight] = deque()
        """In the order they were read."""
        self._prepared: deque[Flight] = deque()
        self._written: Flight | None = None
        """The one that is being written."""
        self._lost: dict[str, int] = {}
        """Partition → the newest assignment that is known to be over."""
        self._failure: BaseException | None = None
        self._total = Report()
        self._last = time.perf_counter()
        self._looked = time.monotonic()
        """When it was last asked whether what is in flight is still ours."""

    def run(self, stop: Event) -> Report:
        """Until the source has ended, or until `stop` is set, and nothing is in flight."""
        self._renewing.begin()
        try:
            while True:
                self._renewing.require()
                self._tell_turn()
                full = self._failure is not None or stop.is_set() or len(self._flights) >= self._in_flight
                if not full and not self._source.ended:
                    came = self._read(0.0 if self._flights else _IDLE_SECONDS)
                    self._react(0.0 if came or not self._flights else _DRY_SECONDS)
                elif self._flights:
                    self._react(_IDLE_SECONDS)
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
        leaving = self._writing.submit(self._steps.leave_part, partition)
        with suppress(BartizanError, TimeoutError):
            leaving.result(_LEAVE_SECONDS)
        leaving.cancel()

    def end(self) -> None:
        """Let the step that is being done end, and no other begin."""
        self._halt.set()
        self._preparing.shutdown(wait=True, cancel_futures=True)
        self._renewing.end()

    def _read(self, timeout: float) -> bool:
        """Take in the next batch, and say whether there was one."""
        started = time.perf_counter()
        batch = self._waiting(lambda: self._source.poll(timeout))
        if batch is None:
            return False
        flight = Flight(batch=batch, lost=batch.generation <= self._lost.get(batch.partition, -1))
        flight.decode(self._steps.collection, self._steps.cut)
        flight.seconds["read"] += time.perf_counter() - started
        self._flights.append(flight)
        self._begin(self._preparing, self._steps.prepare, flight)
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
        elif flight in self._flights:
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
            if self._is_owned(flight):
                self._written = flight
                self._begin(self._writing, self._write, flight)
            else:
                self._leave(flight)

    def _write(self, flight: Flight) -> None:
        self._renewing.require()
        self._steps.write(flight)

    def _commit(self, flight: Flight) -> None:
        """Step 6."""
        if self._is_owned(flight):
            with flight.timed("commit"):
                for message, reason in flight.dead:
                    self._set_aside(message, reason)
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
            log.warning("partition %s went to another reader; its batches are dropped here", batch.partition or "?")
        return not flight.lost

    def _lose(self, flight: Flight) -> None:
        flight.lost = True
        batch = flight.batch
        self._lost[batch.partition] = max(batch.generation, self._lost.get(batch.partition, batch.generation))

    def _leave(self, flight: Flight) -> None:
        """The batch is done with: count it."""
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
