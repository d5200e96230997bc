"""The stream from a source into a collection; the order of its effects is the guarantee.

    1 read    a batch of messages; one that is no record goes to the dead letters with the reason
    2 fence   ask for the heads of its ids; drop what is not newer than they are
    3 skip    content that is stored already only advances its head
    4 encode  what is left
    5 write   a  touch    the heads that advance, and an empty hash for each stored id whose rows are about to change
              b  upsert   rows, then their heads
              c  delete   rows, then their heads, which remember the version
              d  words    the word index, which knows by hash what it holds
    6 commit  tell the source, which makes the dead letters durable first

Each effect is idempotent, and a source gives again what was not committed. So a crash at any point is repaired by the
next run: before 5 nothing happened; within 5 the changes of the batch are still newer than the heads and are done
again; after 5 they are replays. Without 5a one case would be wrong: the rows of B are written over A, the crash comes
before B's head, and then A returns (in one batch with B, whose turn is over): A's old head would call it unchanged, and
B's rows would stay. The empty hash is equal to no content, so A is written. The word index comes last and is compared
by its own hashes, so whatever it lacks is filled in when the change comes again: by the replay after a crash, or by the
next full run when it was added to a collection that is already there.

One writer a collection (or a Kafka partition) at a time: the fence reads before it writes.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

from bartizan_connector.base.errors import Reject, Retry, Stop, WrongUse
from bartizan_connector.encode.answers import check_answer, trusting
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.seams import Batch, Message, SearchBackend, Source
from bartizan_connector.space.vectors import NotFinite, Vector, Vectors
from bartizan_connector.store.checks import leg_for
from bartizan_connector.store.collection import Collection, Head, Leg, Row
from bartizan_connector.stream.fence import Plan, is_torn, newest_by_id, opened, plan
from bartizan_connector.stream.records import Change, Put, decode

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_NAMED_KEYS = 20
"""Undeclared keys that a report names; made-up keys must not fill the memory."""
OTHER_KEYS = "…"
_PLAIN_TEXT = "a probe"
_NOT_FINITE = "the tower gives NaN or infinity for this text; change the text, or ingest it with another tower"


class Words(Protocol):
    """What the pipeline asks of the word index."""

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]: ...

    def upsert(self, rows: Sequence[Row]) -> None: ...

    def delete(self, ids: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for something that is unreachable before giving up."""

    attempts: int = 10
    seconds: float = 120.0
    longest_wait: float = 20.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the messages: read = written + unchanged + stale + deleted + dead."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    """Content that was stored already, at this version or an older one."""
    stale: int = 0
    """Older than what is stored, or than another line of the same batch."""
    deleted: int = 0
    dead: int = 0
    """Set aside as dead letters, each with its reason."""
    truncated: int = 0
    """Among the written: longer than the tower reads, so only the beginning was encoded."""
    undeclared: Mapping[str, int] = field(default_factory=dict)
    """Keys that records carry and the collection does not declare: not stored. How many records carry each."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each step."""
    seconds: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        return Report(
            read=self.read + other.read,
            written=self.written + other.written,
            unchanged=self.unchanged + other.unchanged,
            stale=self.stale + other.stale,
            deleted=self.deleted + other.deleted,
            dead=self.dead + other.dead,
            truncated=self.truncated + other.truncated,
            undeclared=_capped(Counter(self.undeclared) + Counter(other.undeclared)),
            stages={
                stage: self.stages.get(stage, 0.0) + other.stages.get(stage, 0.0)
                for stage in (*self.stages, *other.stages)
            },
            seconds=self.seconds + other.seconds,
        )


def run(
    source: Source,
    encoder: Encoder,
    backend: SearchBackend,
    collection: Collection,
    *,
    words: Words | None = None,
    patience: Patience | None = None,
    on_batch: Callable[[Report], None] | None = None,
) -> Report:
    """Bring the collection up to what the source says. `on_batch` gets each batch's share of the report once committed.

    Retry is waited for once the collection is open (`patience`), then raised; Reject sets exactly its ids aside; Stop
    ends the run. Either way nothing is lost: what was not committed comes again in the next run.
    """
    leg = _leg_for(encoder, collection)
    ingest = _Ingest(encoder, backend, collection, leg, words, patience or Patience())
    backend.ensure(collection)  # what cannot be reached at the start is told at once, not after minutes
    total = Report()
    started = time.perf_counter()
    batches = source.batches()
    while True:
        with ingest.timed("read"):
            batch = next(batches, None)  # 1 read
        if batch is None:
            return total
        share = ingest.batch(source, batch)
        now = time.perf_counter()
        share += Report(seconds=now - started)
        started = now
        total += share
        if on_batch is not None:
            on_batch(share)


class _Ingest:
    """Steps 2 to 6 for one batch after the other."""

    def __init__(
        self,
        encoder: Encoder,
        backend: SearchBackend,
        collection: Collection,
        leg: Leg,
        words: Words | None,
        patience: Patience,
    ) -> None:
        self._encoder = encoder
        self._backend = backend
        self._collection = collection
        self._leg = leg
        self._words = words
        self._patience = patience
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def batch(self, source: Source, batch: Batch) -> Report:
        """Do everything one batch asks for, commit it, and say what became of each of its messages."""
        with self.timed("read"):
            alive = self._decode(source, batch)
        vectors: dict[str, tuple[Vector, bool]] = {}
        while True:
            try:
                done = self._apply([change for _, change in alive], vectors)
                break
            except Reject as error:
                rejected = _rejected(error, alive)
                for message, _ in rejected:
                    source.dead_letter(message, error.reason)
                alive = [pair for pair in alive if not any(pair is each for each in rejected)]
        with self.timed("commit"):
            self.patiently(lambda: source.commit(batch))  # 6 commit
        undeclared = Counter(key for _, change in alive if isinstance(change, Put) for key in change.undeclared)
        stages, self._seconds = dict(self._seconds), defaultdict(float)
        return Report(
            read=len(batch.messages),
            written=len(done.write),
            unchanged=len(done.advance) + len(done.known),
            stale=len(done.stale),
            deleted=len(done.delete),
            dead=len(batch.messages) - len(alive),
            truncated=sum(vectors[put.hash][1] for put in done.write),
            undeclared=undeclared,
            stages=stages,
        )

    def _decode(self, source: Source, batch: Batch) -> list[tuple[Message, Change]]:
        """Each message that is a record, with the change it asks for; the others are set aside."""
        alive = []
        for message in batch.messages:
            try:
                alive.append((message, decode(message, self._collection)))
            except Reject as error:
                source.dead_letter(message, error.reason)
        return alive

    def _apply(self, changes: Sequence[Change], vectors: dict[str, tuple[Vector, bool]]) -> Plan:
        """Steps 2 to 5; Reject says which changes must leave before it is tried again."""
        ids = list(dict.fromkeys(change.id for change in changes))
        with self.timed("fence"):
            heads = self.patiently(lambda: self._backend.heads(ids)) if ids else {}
            todo = plan(changes, heads)  # 2 fence, 3 skip
        with self.timed("encode"):
            self._encode([put for put in todo.write if put.hash not in vectors], vectors)  # 4 encode
        with self.timed("write"):
            self._write(todo, heads, vectors)  # 5 write
        return todo

    def _encode(self, puts: Sequence[Put], vectors: dict[str, tuple[Vector, bool]]) -> None:
        """One vector for each content. An encoder does not know ids: what it rejects is found by halves."""
        distinct = {put.hash: put for put in puts}
        if not distinct:
            return
        texts = [put.encoded for put in distinct.values()]
        try:
            batch = self._vectors(texts)
        except Reject as error:
            if len(distinct) == 1:
                raise Reject([put.id for put in puts], error.reason) from error
            half = len(puts) // 2
            self._encode(puts[:half], vectors)
            self._encode([put for put in puts[half:] if put.hash not in vectors], vectors)
            return
        vectors.update(zip(distinct, zip(batch, batch.truncated, strict=True), strict=True))

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """What the tower gives. Where it is not finite the texts are to blame, unless a plain text fares no better."""
        try:
            batch = self.patiently(lambda: self._encoder.encode(texts, "document"))
        except NotFinite as error:
            with trusting(self._encoder.spec):
                self.patiently(lambda: self._encoder.encode([_PLAIN_TEXT], "document"))
            raise Reject((), _NOT_FINITE) from error
        return check_answer(batch, self._encoder.spec, len(texts))

    def _write(self, todo: Plan, heads: Mapping[str, Head], vectors: Mapping[str, tuple[Vector, bool]]) -> None:
        """Step 5, in its order."""
        rows = [self._row(put, vectors[put.hash][0]) for put in todo.write]
        gone = [Head(id=each.id, version=each.version, deleted=True) for each in todo.delete]
        changing = [heads[id] for id in [row.id for row in rows] + [head.id for head in gone] if id in heads]
        touched = [Head(id=put.id, version=put.version, hash=put.hash) for put in todo.advance]
        touched += [opened(head) for head in changing if not head.deleted and not is_torn(head)]
        if touched:
            self.patiently(lambda: self._backend.touch(touched))  # a
        if rows:
            self._upsert(rows, heads)  # b
        if gone:
            self.patiently(lambda: self._backend.delete(gone))  # c
        if self._words is not None:
            self._write_words(self._words, todo)  # d

    def _upsert(self, rows: Sequence[Row], heads: Mapping[str, Head]) -> None:
        """Store the rows. What is rejected keeps the rows it had, so it gets the head back that belongs to them."""
        try:
            self.patiently(lambda: self._backend.upsert(rows))
        except Reject as error:
            if kept := [heads[id] for id in error.ids if id in heads]:
                self.patiently(lambda: self._backend.touch(kept))
            raise

    def _write_words(self, words: Words, todo: Plan) -> None:
        """Make the word index hold what is stored of these ids now, whatever it held before."""
        wanted: dict[str, Put | None] = {}
        for change in (*todo.write, *todo.delete, *todo.advance, *todo.known):
            wanted[change.id] = change if isinstance(change, Put) else None
        if not wanted:
            return
        held = self.patiently(lambda: words.hashes(list(wanted)))
        rows = [self._row(put) for put in wanted.values() if put is not None and held.get(put.id) != put.hash]
        gone = [id for id, put in wanted.items() if put is None and id in held]
        if rows:
            self.patiently(lambda: words.upsert(rows))
        if gone:
            self.patiently(lambda: words.delete(gone))

    def _row(self, put: Put, vector: Vector | None = None) -> Row:
        vectors = {} if vector is None else {self._leg.name: vector}
        return Row(id=put.id, vectors=vectors, fields=put.fields, version=put.version, hash=put.hash)

    def patiently(self, call: Callable[[], T]) -> T:
        """Do it again while it says Retry, within bounds; then the last Retry is raised."""
        patience = self._patience
        retrying = Retrying(
            retry=retry_if_exception_type(Retry),
            stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
            wait=lambda state: _wait(state, patience.longest_wait),
            sleep=patience.sleep,
            before_sleep=_say_wait,
            reraise=True,
        )
        return retrying(call)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to the stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - started


def _leg_for(encoder: Encoder, collection: Collection) -> Leg:
    """The leg that this tower fills; refused before anything is written when it is of another space."""
    encoder.spec.role("document")
    leg = leg_for(
        collection,
        encoder.spec,
        "cannot fill",
        way_out="Ingest with the document tower of that space, or into a new collection.",
    )
    if len(collection.legs) > 1:
        legs = ", ".join(each.name for each in collection.legs)
        raise WrongUse(
            f"collection '{collection.name}' has the legs {legs}, but one tower fills one leg; give each tower a "
            "collection of its own (docs/decisions/010)"
        )
    return leg


def _rejected(error: Reject, alive: Sequence[tuple[Message, Change]]) -> list[tuple[Message, Change]]:
    """The messages that a Reject is about: of each id the newest, as only that was tried."""
    newest = newest_by_id([change for _, change in alive])
    rejected = [pair for pair in alive if pair[1].id in error.ids and newest[pair[1].id] is pair[1]]
    if not rejected:
        raise Stop(f"something was rejected that is not in the batch ({', '.join(error.ids)}): {error}") from error
    return rejected


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


def _capped(counts: Counter[str]) -> dict[str, int]:
    """The first keys keep their names; the rest are counted together."""
    names = list(counts)[:MAX_NAMED_KEYS]
    rest = sum(counts.values()) - sum(counts[name] for name in names)
    return {name: counts[name] for name in names} | ({OTHER_KEYS: rest} if rest else {})
