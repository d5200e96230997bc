"""Writes one collection's rows and ledger.

The order of effects is the guarantee. A write goes: 1 announce in the ledger how far an id's chunks will reach, where
that grows · 2 write the rows · 3 remove the chunks that are left over · 4 complete the ledger. Whoever is killed in
between has not completed, so the documents come again, and the announcement tells what that write must remove.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from threading import RLock

from bartizan_connector.base.errors import BartizanError, Reject, Stop
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store.audit import Balance
from bartizan_connector.store.checks import checked_heads, checked_rows
from bartizan_connector.store.collection import Document, Head, Row, is_of_type
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import one_of
from bartizan_connector.store.milvus.failures import calling, is_missing
from bartizan_connector.store.milvus.lease import Lease
from bartizan_connector.store.milvus.ledger import Entry, in_portions, is_reserved
from bartizan_connector.store.milvus.preparation import Prepared
from bartizan_connector.store.milvus.schema import entity_of, primary_key
from bartizan_connector.store.milvus.sealing import Sealing
from bartizan_connector.store.narrowing import raise_refused, refused_of

_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 << 20
_BYTES_AT_MOST = 48 << 20
"""A server takes at most 64 MiB in one request."""
_SLOW_FROM = 500
"""Rows that Milvus Lite has not flushed are compared one by one: 500 double a search's time, flushing takes 0.1 s."""
_INDEXED_FROM = 1024
"""A server makes no index over fewer rows, so flushing them gains nothing; its log keeps them anyway."""
_MOST_FRESH = 50_000
_MOST_OWN = 50_000
_UNSURE_SECONDS = 2.0


class Writer:
    """One physical collection's only writer in this process: all stores of it share one, and writes take turns."""

    def __init__(self, connection: Connection, prepared: Prepared, name: str, silence: float) -> None:
        self.prepared = prepared
        self.lock = RLock()
        self.lease = Lease(connection, name, prepared.found.physical, prepared.ledger, silence)
        self.sealing = Sealing(connection, (prepared.found.physical, prepared.ledger.name))
        self._connection = connection
        self._physical = prepared.found.physical
        self._collection = prepared.found.contract
        self._ledger = prepared.ledger
        self._unflushed = _SLOW_FROM if connection.file else 0  # what another run left is not known
        self._is_blind = False
        """After a flush that failed, Milvus Lite forgets what it was to flush until it is opened again."""
        self._fresh: OrderedDict[str, Entry] = OrderedDict()
        """What `heads` has read, and on a server what was completed after that. The writes that follow take it from
        here: a read costs a server 0.2 s, as much as all the rest of a batch. Nobody else changes it while lease and
        parts are ours, and whatever is written after they are lost is refused. In a file it is taken once."""
        self._forgotten = 0
        """How often what was read came to count no more."""
        self._sure_from, self._is_unsure = 0.0, False
        """From when on what is read is kept, and whether some of what was read is older than that: a server may show
        for a second what a former writer has just replaced (docs/decisions/029)."""
        self._own: OrderedDict[str, Entry] = OrderedDict()
        """What was completed by us, the newest: a server of 2.3 that several read at once may show a row that was just
        replaced as it was, or as gone (docs/decisions/029), and the fence must not go by that."""

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        """As the ledger says now."""
        return _known(self._asked(ids, deciding=False))

    def heads_for(self, part: str, ids: Sequence[str]) -> Mapping[str, Head]:
        """What is known of these ids to the one who writes for their part; the ledger is asked about the others."""
        with self._leased(part):
            unsure = time.monotonic() < self._sure_from
            if unsure or self._is_unsure or self._connection.file:
                self._fresh.clear()
            self._is_unsure = unsure
            known = {id: self._fresh[id] for id in ids if id in self._fresh}
            return _known(known | self._asked([id for id in ids if id not in known], deciding=True))

    def claim(self, group: str) -> None:
        """Be the one who writes, or one of the group; what others wrote meanwhile is read anew."""
        with self.lock:
            self.lease.join(group)
        with self._leased():
            pass

    def renew(self) -> float:
        """Be heard of, and say when to be heard of again."""
        with self._leased():
            return self.lease.renewal

    def take(self, part: str) -> None:
        """Be the only one of the group who writes for that part of the ids; heads are read after it."""
        with self._leased():
            if self.lease.take(part):
                self._read_anew()

    def leave_part(self, part: str) -> None:
        with self.lock:
            self.lease.leave_part(part)

    def upsert(self, rows: Sequence[Row], part: str | None = None) -> None:
        with self._leased(part):
            refuse_ours([row.id for row in rows])
            documents = {document.id: document for document in checked_rows(self._collection, rows)}
            before = self._read(list(documents))
            after = {id: Entry(each.head, each.rows[-1].chunk + 1) for id, each in documents.items()}
            refused = self._announce(before, after)
            refused |= self._write_rows([each for id, each in documents.items() if id not in refused])
            written = [id for id in documents if id not in refused]
            kept = {primary_key(id, row.chunk) for id in written for row in documents[id].rows}
            reach = {id: max(before[id].chunks, after[id].chunks) for id in written}
            self._remove_rows([key for id in written for key in _keys(id, reach[id]) if key not in kept])
            refused |= self._complete([after[id] for id in written])
            self._raise(refused, list(documents))

    def touch(self, heads: Sequence[Head], part: str | None = None) -> None:
        with self._leased(part):
            refuse_ours([head.id for head in heads])
            checked = checked_heads(heads)
            before = self._read([head.id for head in checked])
            after = {head.id: Entry(head, before[head.id].chunks) for head in checked}
            refused = self._complete(list(after.values()))
            self._remember({id: entry for id, entry in after.items() if id not in refused})
            self._raise(refused, list(after))

    def delete(self, heads: Sequence[Head], part: str | None = None) -> None:
        with self._leased(part):
            refuse_ours([head.id for head in heads])
            checked = checked_heads(heads)
            before = self._read([head.id for head in checked])
            self._remove_rows([key for head in checked for key in _keys(head.id, before[head.id].chunks)])
            refused = self._complete([Entry(replace(head, deleted=True)) for head in checked])
            self._raise(refused, [head.id for head in checked])

    def remove(self, keys: Sequence[str]) -> None:
        """Take rows away by their keys, whatever the ledger says."""
        with self._leased():
            self._remove_rows(keys)

    def purge(self, before: int, since: int) -> int:
        with self._leased():
            self._forget()
            self.sealing.wrote()
            return self._ledger.forget(before, since)

    def flush(self, *, at_least: int | None = None) -> None:
        """Give what was written an index, where it is worth it and there is room; without, it is found all the same.
        `at_least`: only from so many rows on."""
        least = at_least or (1 if self._connection.file else _INDEXED_FROM)
        if self._unflushed < least or not self._connection.has_room_to_flush():
            return
        with self.lock:
            try:
                for name in [self._physical] + ([self._ledger.name] if self._connection.file else []):
                    with calling(self._connection.place):
                        self._connection.client.flush(name, timeout=self._connection.timeout)
            except BartizanError as error:
                self._is_blind = self._connection.file is not None and not is_missing(error)
                raise
            self._unflushed = 0

    def require_sight(self) -> None:
        """Refuse to read on where Milvus Lite would show less than there is."""
        if self._is_blind:
            raise Stop(
                f"Milvus Lite at {self._connection.place} could not flush; its newest rows are kept in its log, and it "
                "shows them once it is opened again. Make room and run again"
            )

    def flush_before_search(self) -> None:
        if self._connection.file:
            self.flush(at_least=_SLOW_FROM)

    def leave(self) -> None:
        """Flush at the end; a collection that was dropped has nothing to flush."""
        try:
            self.flush()
        except Stop as error:
            if not is_missing(error):
                raise

    def release(self, count_rows: Callable[[], int]) -> None:
        """Let the next one write, and write down what is there. What cannot be said is not, and costs nobody anything:
        once it is forgotten here, the lease is found free."""
        with self.lock:
            if not self.lease.is_held:
                return
            try:
                with suppress(BartizanError):
                    if self.lease.leave():
                        self.lease.release(self._balance(count_rows))
                self.sealing.see(is_last=True)
            finally:
                self.lease.forget()

    def _balance(self, count_rows: Callable[[], int]) -> Balance | None:
        with suppress(BartizanError):
            return self._ledger.balance(count_rows())
        return None

    @contextmanager
    def _leased(self, part: str | None = None) -> Iterator[None]:
        """A turn of the one who may write. Whoever has lost its place finds out by what the server says."""
        with self.lock:
            try:
                if self.lease.claim():
                    self._forget()
                    self.sealing.begin()
                with self.lease.by(part):
                    yield
                self.sealing.see()
            except Reject:  # of some; the others were written
                self.sealing.see()
                raise
            except Stop as error:
                if is_missing(error) and (lost := self.lease.lost()):
                    self._forget()
                    raise lost from error
                if is_missing(error) and (displaced := self.lease.displaced(part)):
                    raise displaced from error
                raise

    def _forget(self) -> None:
        """Others wrote meanwhile."""
        self._read_anew()
        self._own.clear()

    def _read_anew(self) -> None:
        """What was read counts no more, nor does what is read at first."""
        self._fresh.clear()
        self._forgotten += 1
        self._sure_from, self._is_unsure = time.monotonic() + _UNSURE_SECONDS, True

    def _asked(self, ids: Sequence[str], *, deciding: bool) -> dict[str, Entry]:
        """What the ledger says of these ids. A server is asked while others here write, and what it says is corrected
        by what they did meanwhile. What was asked too early to be sure is kept only where it is decided by at once."""
        possible = [id for id in ids if id and not is_reserved(id) and is_of_type(id, "string")]
        with self.lock if self._connection.file else nullcontext():
            forgotten, begun = self._forgotten, time.monotonic()
            read = self._ledger.read(possible)
            with self.lock:
                self._correct(read, possible)
                entries = {id: Entry.unknown(id) for id in possible} | read
                is_sure = deciding or self._connection.file is not None or begun >= self._sure_from
                if is_sure and forgotten == self._forgotten:
                    self._remember(entries)
        return entries

    def _read(self, ids: Sequence[str]) -> dict[str, Entry]:
        """What the ledger holds of every one of these ids."""
        taken = self._fresh.pop if self._connection.file else self._fresh.__getitem__
        fresh = {id: taken(id) for id in set(ids) if id in self._fresh}
        read = self._from_ledger([id for id in ids if id not in fresh])
        return {id: Entry.unknown(id) for id in ids} | read | fresh

    def _from_ledger(self, ids: Sequence[str]) -> dict[str, Entry]:
        """What the ledger holds of these ids, at least as new as what we wrote."""
        read = self._ledger.read(ids)
        self._correct(read, ids)
        return read

    def _correct(self, read: dict[str, Entry], ids: Sequence[str]) -> None:
        """Put what we wrote in the place of what is older."""
        for id in ids:
            if own := self._own.get(id):
                found = read.get(id, own)
                newer = own if _is_newer(own.head, found.head) else found
                read[id] = replace(newer, chunks=max(own.chunks, found.chunks))

    def _remember(self, entries: Mapping[str, Entry]) -> None:
        self._fresh.update(entries)
        while len(self._fresh) > _MOST_FRESH:
            self._fresh.popitem(last=False)

    def _announce(self, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, str]:
        """Before rows are written beyond where the ledger says that an id may have some."""
        growing = [id for id in after if after[id].chunks > before[id].chunks]
        return self._complete([Entry(before[id].head, after[id].chunks) for id in growing])

    def _complete(self, entries: Sequence[Entry]) -> dict[str, str]:
        self.sealing.wrote()
        try:
            refused = self._ledger.write(entries)
        except BaseException:
            self._read_anew()  # it may have been done
            raise
        if not self._connection.file:
            for entry in entries:
                if entry.head.id not in refused:
                    self._own[entry.head.id] = entry
                    self._own.move_to_end(entry.head.id)
                    self._remember({entry.head.id: entry})
            while len(self._own) > _MOST_OWN:
                self._own.popitem(last=False)
        return refused

    def _write_rows(self, documents: Sequence[Document]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for some in _requests(documents):
            refused |= refused_of(some, self._send, lambda document: document.id)
        return refused

    def _send(self, documents: Sequence[Document]) -> None:
        """Upsert, never insert: an insert of a key that is there makes it stand twice."""
        rows = [row for document in documents for row in document.rows]
        for some in _bounded(rows):
            with calling(self._connection.place, ids=[document.id for document in documents]):
                self._connection.client.upsert(
                    self.lease.rows,
                    [entity_of(row, self._collection) for row in some],
                    timeout=self._connection.timeout,
                )
            self._unflushed += len(some)

    def _remove_rows(self, keys: Sequence[str]) -> None:
        """By an expression of our own: the one that pymilvus makes of `ids` quotes nothing that it must."""
        self.sealing.wrote()
        for some in in_portions(keys, _ROWS_AT_ONCE):
            with calling(self._connection.place):
                self._connection.client.delete(
                    self.lease.rows, filter=one_of("pk", some), timeout=self._connection.timeout
                )
            self._unflushed += len(some)

    def _raise(self, refused: Mapping[str, str], ids: Sequence[str]) -> None:
        raise_refused(refused, ids, f"Milvus at {self._connection.place}")


def _known(entries: Mapping[str, Entry]) -> dict[str, Head]:
    return {id: entry.head for id, entry in entries.items() if entry.is_known}


def _is_newer(own: Head, read: Head) -> bool:
    """Whether what we wrote is newer than what is read. Of one version, what is torn counts: it is written again."""
    return own.version > read.version or (own.version == read.version and not own.hash and not own.deleted)


def refuse_ours(ids: Sequence[str]) -> None:
    """Reject ids that no document may have."""
    own = [id for id in ids if is_reserved(id)]
    if own:
        raise Reject(own, f"the id {own[0]!r} is the ledger's own")


def _keys(id: str, reach: int) -> Iterator[str]:
    return (primary_key(id, chunk) for chunk in range(reach))


def _requests(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """The documents in requests of bounded length and size, each document whole in one: Milvus takes a request whole or
    not at all, so a document of which a row is refused keeps all that it had."""
    some: list[Document] = []
    rows = size = 0
    for document in documents:
        weight = sum(map(_bytes_of, document.rows))
        if some and (rows + len(document.rows) > _ROWS_AT_ONCE or size + weight > _BYTES_AT_ONCE):
            yield some
            some, rows, size = [], 0, 0
        some.append(document)
        rows += len(document.rows)
        size += weight
    if some:
        yield some


def _bounded(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in one request, or in as many as it takes: a document alone may be longer than any request."""
    some: list[Row] = []
    size = 0
    for row in rows:
        weight = _bytes_of(row)
        if some and size + weight > _BYTES_AT_MOST:
            yield some
            some, size = [], 0
        some.append(row)
        size += weight
    if some:
        yield some


def _bytes_of(row: Row) -> int:
    texts = sum(len(value.encode()) for value in row.fields.values() if isinstance(value, str))
    numbers = 0
    for vector in row.vectors.values():
        value = vector.value
        numbers += 16 * len(value.indices) if isinstance(value, SparseVector) else value.nbytes
    return 256 + texts + numbers
