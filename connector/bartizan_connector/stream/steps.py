"""The steps of one batch between reading and commit: fence, skip, encode, write; all can be done twice without harm."""

import time
from collections.abc import Callable, Mapping, Sequence

from bartizan_connector.base.errors import Reject
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.stream.fence import Plan, is_torn, opened, plan
from bartizan_connector.stream.flight import Expected, Flight
from bartizan_connector.stream.patience import Waiting
from bartizan_connector.stream.records import Change, Cut, Put
from bartizan_connector.stream.towers import Chunk, Towers
from bartizan_connector.stream.versions import latest
from bartizan_connector.stream.words import Words


class Steps:
    """What is done with a batch; `prepare` and `write` are called from different threads, for different batches."""

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

    @property
    def collection(self) -> Collection:
        """What records are read for."""
        return self._store.collection

    @property
    def cut(self) -> Cut | None:
        """How their texts are cut."""
        return self._towers.cut

    def prepare(self, flight: Flight) -> None:
        """Encode what this batch will write as far as can be told now; decides nothing but that."""
        if flight.lost:
            return
        ids = flight.ids
        expected = self._expected.heads(ids)  # before the store is asked: what ends in between is in both
        todo, _ = self._settle(flight, flight.changes, {**self._heads(flight, ids), **expected})
        self._expected.add(flight, todo)

    def write(self, flight: Flight) -> None:
        """Decide by what is stored now, and do it. What is refused leaves the batch, and the rest is decided again."""
        if flight.lost:
            return
        heads = self._heads(flight, flight.ids)
        while True:
            todo, refused = self._settle(flight, flight.changes, heads)
            for put in refused:
                flight.set_aside([put], flight.refused[put.hash])
            try:
                with flight.timed("write"):
                    self._write(flight, todo, heads)
            except Reject as error:
                flight.reject(error, todo)
            else:
                flight.done, flight.stored = todo, heads
                return

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
                todo = plan(left, heads, now=latest(self._clock()))
            puts = [put for put, _ in todo.write]
            with flight.timed("encode"):
                self._towers.encode(puts, flight.encoded, flight.refused)
            bad = [put for put in puts if put.hash in flight.refused]
            if not bad:
                return todo, refused
            refused += bad

    def _write(self, flight: Flight, todo: Plan, heads: dict[str, Head]) -> None:
        """Step 5, in its order. `heads` is kept as it is stored where rows are about to change."""
        rows = [row for put, head in todo.write for row in _rows(put, head, flight.encoded[put.hash].chunks)]
        gone = [head for _, head in todo.delete]
        unsettled = [*dict.fromkeys(row.id for row in rows), *(head.id for head in gone)]
        changing = [heads[id] for id in unsettled if id in heads]
        marks = [opened(head) for head in changing if not head.deleted and not is_torn(head)]
        touched = [head for _, head in todo.advance] + marks
        words = self._words
        if words is not None and unsettled:
            self._waiting(lambda: words.announce(unsettled))
        if touched:
            self._waiting(lambda: self._store.touch(touched))  # a
        former = {head.id: heads[head.id] for head in marks}
        heads.update((head.id, head) for head in marks)
        if rows:
            self._upsert(rows, heads, former)  # b
        if gone:
            self._waiting(lambda: self._store.delete(gone))  # c
        if words is not None:
            self._write_words(words, todo)  # d
            if unsettled:
                self._waiting(words.settle)

    def _upsert(self, rows: Sequence[Row], heads: dict[str, Head], former: Mapping[str, Head]) -> None:
        """Store the rows. What is rejected keeps the rows it had, so it gets the head back that belongs to them."""
        try:
            self._waiting(lambda: self._store.upsert(rows))
        except Reject as error:
            kept = [former[id] for id in error.ids if id in former]
            if kept:
                self._waiting(lambda: self._store.touch(kept))
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
