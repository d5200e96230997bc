"""The steps of one batch between reading and commit: fence, skip, encode, write; all can be done twice without harm."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bartizan_connector.base.errors import Displaced, Reject
from bartizan_connector.store.backend import Parted, Renewed, Sealed, Store, Whole, Writes
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.stream.fence import Plan, is_torn, opened, plan
from bartizan_connector.stream.flight import Expected, Flight
from bartizan_connector.stream.patience import Waiting
from bartizan_connector.stream.records import Change, Cut, Put
from bartizan_connector.stream.towers import Chunk, Towers
from bartizan_connector.stream.versions import latest
from bartizan_connector.stream.words import Words, follow

log = logging.getLogger(__name__)
T = TypeVar("T")
_DISPLACED_SECONDS = 1.0
"""By then a source that was asleep has heard whether the partition is still ours."""


class _Lost(Exception):
    """The partition is another reader's by now."""


class Steps:
    """What is done with a batch; `look`, `prepare` and `write` are called from three threads, for different batches."""

    def __init__(
        self,
        store: Store,
        words: Words | None,
        towers: Towers,
        waiting: Waiting,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._words = words
        self._towers = towers
        self._waiting = waiting
        self._clock = clock
        self._expected = Expected()
        self._can_tear = not (isinstance(store, Whole) and store.writes_whole)
        """Whether a write that is cut off may leave an id's rows changed under its old head."""

    @property
    def collection(self) -> Collection:
        """What records are read for."""
        return self._store.collection

    @property
    def cut(self) -> Cut | None:
        """How their texts are cut."""
        return self._towers.cut

    def look(self, flight: Flight) -> None:
        """Ask for the heads that the batch is prepared by, while the one ahead of it is still encoded."""
        if flight.lost:
            return
        ids = flight.ids
        expected = self._expected.heads(ids)  # before the store is asked: what ends in between is in both
        flight.foreseen = {**self._heads(flight, ids), **expected}

    def prepare(self, flight: Flight) -> None:
        """Encode what this batch will write as far as can be told now; decides nothing but that."""
        if flight.lost:
            return
        todo, _ = self._settle(flight, flight.changes, {**flight.foreseen, **self._expected.heads(flight.ids)})
        flight.foreseen = {}
        self._expected.add(flight, todo)

    def write(self, flight: Flight) -> None:
        """Decide by what is stored now, and do it. Where another writes for the partition, that is done anew, unless
        the partition turns out to be lost."""
        while not flight.lost:
            try:
                self._decide_and_write(flight, self._target(flight))
            except Displaced as error:
                log.warning("%s; unless that one has the partition, this batch is decided anew", error)
                self._waiting.pause(_DISPLACED_SECONDS)
            except _Lost:
                return
            else:
                return

    def renew(self) -> float:
        """Be heard of as the one who writes, and say after how many seconds to be heard of again."""
        return self._store.renew() if isinstance(self._store, Renewed) else math.inf

    @property
    def needs_seal(self) -> bool:
        """Whether what was written is durable only once it is sealed."""
        return isinstance(self._store, Sealed) and self._store.needs_seal

    def seal(self) -> None:
        """Make all durable that was written before."""
        assert isinstance(self._store, Sealed)
        self._store.seal()

    def leave_part(self, partition: str) -> None:
        """The partition goes to another reader, and nothing of it is being written."""
        if isinstance(self._store, Parted) and partition:
            self._store.leave_part(partition)

    def _target(self, flight: Flight) -> Writes:
        """Where the batch is written: nobody else writes for its partition from now on."""
        store, partition = self._store, flight.batch.partition
        if not isinstance(store, Parted) or not partition:
            return store
        with flight.timed("fence"):
            return self._go_on(flight, lambda: store.part(partition))

    def _go_on(self, flight: Flight, call: Callable[[], T]) -> T:
        """The call, again and again while it must be waited for and the partition is ours."""

        def unless_lost() -> T:
            if flight.lost:
                raise _Lost
            return call()

        return self._waiting(unless_lost)

    def _decide_and_write(self, flight: Flight, target: Writes) -> None:
        """What is refused leaves the batch, and the rest is decided again."""
        heads = self._deciding(flight, target)
        while True:
            todo, refused = self._settle(flight, flight.changes, heads)
            for put in refused:
                flight.set_aside([put], flight.refused[put.hash])
            try:
                with flight.timed("write"):
                    self._write(flight, target, todo, heads)
            except Reject as error:
                flight.reject(error, todo)
            else:
                flight.done, flight.stored = todo, heads
                return

    def _deciding(self, flight: Flight, target: Writes) -> dict[str, Head]:
        ids = flight.ids
        with flight.timed("fence"):
            return dict(self._go_on(flight, lambda: target.heads(ids))) if ids else {}

    def forget(self, flight: Flight) -> None:
        """The batch has left."""
        self._expected.remove(flight)

    def _heads(self, flight: Flight, ids: Sequence[str]) -> dict[str, Head]:
        with flight.timed("fence"):
            return dict(self._waiting(lambda: self._store.heads(ids))) if ids else {}

    def _settle(
        self, flight: Flight, changes: Sequence[Change], heads: Mapping[str, Head]
    ) -> tuple[Plan, Sequence[Put]]:
        """A plan of which every document has its vectors, and the changes that had to leave for it."""
        refused: list[Put] = []
        while True:
            with flight.timed("fence"):
                left = [change for change in changes if not any(change is each for each in refused)]
                todo = plan(left, heads, now=latest(self._clock()), doubtful=flight.doubtful)
            puts = [put for put, _ in todo.write]
            with flight.timed("encode"):
                self._towers.encode(puts, flight.encoded, flight.refused)
            bad = [put for put in puts if put.hash in flight.refused]
            if not bad:
                return todo, refused
            refused += bad

    def _write(self, flight: Flight, target: Writes, todo: Plan, heads: dict[str, Head]) -> None:
        """Step 5, in its order. `heads` is kept as it is stored where rows are about to change."""
        rows = [row for put, head in todo.write for row in _rows(put, head, flight.encoded[put.hash].chunks)]
        gone = [head for _, head in todo.delete]
        unsettled = [*dict.fromkeys(row.id for row in rows), *(head.id for head in gone)]
        changing = [heads[id] for id in unsettled if id in heads]
        marks = [opened(head) for head in changing if self._can_tear and not head.deleted and not is_torn(head)]
        touched = [head for _, head in todo.advance] + marks
        words = self._words
        if words is not None and unsettled:
            self._waiting(lambda: words.announce(unsettled))
        try:
            if touched:
                self._go_on(flight, lambda: target.touch(touched))  # a
            former = {head.id: heads[head.id] for head in marks}
            heads.update((head.id, head) for head in marks)
            if rows:
                self._upsert(flight, target, rows, heads, former)  # b
            if gone:
                self._go_on(flight, lambda: target.delete(gone))  # c
        except (Displaced, _Lost):
            if words is not None and unsettled:  # what was announced is what others wrote, or began
                follow(words, self._store, unsettled, self._waiting)
                self._waiting(words.settle)
            raise
        if words is not None:
            self._write_words(words, todo)  # d
            if unsettled:
                self._waiting(words.settle)

    def _upsert(
        self,
        flight: Flight,
        target: Writes,
        rows: Sequence[Row],
        heads: dict[str, Head],
        former: Mapping[str, Head],
    ) -> None:
        """Store the rows. What is rejected keeps the rows it had, so it gets the head back that belongs to them."""
        try:
            self._go_on(flight, lambda: target.upsert(rows))
        except Reject as error:
            kept = [former[id] for id in error.ids if id in former]
            if kept:
                self._go_on(flight, lambda: target.touch(kept))
                heads.update((head.id, head) for head in kept)
            raise

    def _write_words(self, words: Words, todo: Plan) -> None:
        """Make the word index hold what is stored of these ids now, whatever it held before."""
        wanted: dict[str, tuple[Put, Head | None] | None] = {}
        wanted |= {put.id: (put, head) for put, head in (*todo.write, *todo.advance)}
        wanted |= {head.id: None for _, head in todo.delete}
        for change in todo.known:
            wanted[change.id] = (change, None) if isinstance(change, Put) else None
        if not wanted:
            return
        held = self._waiting(lambda: words.hashes(list(wanted)))
        lacking = [each for each in wanted.values() if each is not None and held.get(each[0].id) != each[0].hash]
        rows = [row for put, head in lacking for row in _rows(put, head, self._towers.bare(put))]
        gone = [id for id, each in wanted.items() if each is None and id in held]
        if rows:
            self._waiting(lambda: words.upsert(rows))
        if gone:
            self._waiting(lambda: words.delete(gone))


def _rows(put: Put, head: Head | None, chunks: Sequence[Chunk]) -> list[Row]:
    """The document as it is stored: of each chunk the fields, in which the text is the chunk's own."""
    own_text = len(chunks) > 1 and "text" in put.fields
    return [
        Row(
            id=put.id,
            chunk=number,
            vectors=chunk.vectors,
            fields={**put.fields, "text": chunk.text} if own_text else put.fields,
            version=head.version if head else put.version,
            hash=put.hash,
            origin=put.origin,
            offset=put.offset,
        )
        for number, chunk in enumerate(chunks)
    ]
