"""The stream from a source into a collection; the order of its effects is the guarantee.

    1 read    a batch of messages; one that is no record is for the dead letters, with the reason
    2 fence   ask for the heads of its ids; drop what is not newer than they are
    3 skip    content that is stored already only advances its head
    4 encode  what is left, by the tower of every leg
    5 write   a  touch    the heads that advance, and an empty hash for each stored id whose rows are about to change,
                          unless the store writes rows and heads as a whole
              b  upsert   rows with the vectors of all legs, then their heads
              c  delete   rows, then their heads, which remember the version
              d  words    the word index, which knows by hash what it holds; before a it is told durably which ids'
                          rows are about to change, so that the next run makes it agree about them, come what may
    6 commit  hand the dead letters over, then tell the source, which makes them durable first

A batch is one value (`Flight`) that passes through these steps. Several are in flight: while one is written, the next
is encoded and the one after it is read (`stream/pipeline.py`). Batches are written and committed in the order they were
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

A store may keep what it acknowledged in memory and forget it when it is killed (`Sealed`). Then 6 waits: the source is
told before 5 that the batch will be written (`Noting`), and what is written is sealed every few seconds; only what a
seal covers is committed. Whoever reads on from there, or this run where the server was away, gets the rest again as
doubtful, and writes it again whatever its heads say: a head may stand while its rows are forgotten.

A batch whose partition went to another reader is dropped, whether before it is written or before it is committed, with
all that were read after it under the same assignment; the new owner reads them again.

One writer a collection at a time: the fence reads before it writes, so the store's lease is claimed before anything is
read (`Store.claim`), and a second run is told who writes; a writer to which nothing comes is heard of all the same
(`Renewing`). And one a partition: a source that gives a partition up in good order (`Yielding`) has the write that is
going on finished first, if the store answers in time; what is not is the next owner's to do.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Event

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.pace import SECONDS, Pace
from bartizan_connector.stream.patience import Patience, Waiting
from bartizan_connector.stream.pipeline import Pipeline
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Shared, Sized, Source, Yielding
from bartizan_connector.stream.steps import Steps
from bartizan_connector.stream.towers import Towers, check_towers
from bartizan_connector.stream.watch import NOBODY, Watch
from bartizan_connector.stream.words import Words, agree

log = logging.getLogger(__name__)

IN_FLIGHT = 4
"""Batches: one that is written, one that is encoded, and one waiting for each."""


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
    pipeline = Pipeline(source, steps, waiting, halt, stop, on_batch, on_ids, watch, pace, in_flight)
    if isinstance(source, Yielding):
        source.before_yielding(pipeline.settle)
    try:
        return pipeline.run()
    finally:
        pipeline.end()
