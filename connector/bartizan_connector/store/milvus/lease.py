"""Who writes into a collection in Milvus: one at a time, known by name, and fenced by the server itself.

Milvus has no compare-and-set for rows, but it renames a collection in one step, for one of several who try, and it
refuses what is written by an alias that is gone. So the writer of epoch n writes by aliases of its own of rows and
ledger:

1. who wants to write reads who does, from a row of the ledger; one that may live is named, and nothing happens;
2. it renames an empty collection, the marker, from the epoch that it has seen to the next: of several, one can;
3. it makes its aliases, and goes on if no epoch is higher by then;
4. it drops the aliases of the epochs before: whatever their holder still sends is refused by the server;
5. it writes its own name into the ledger, by its own alias, and again every now and then.

The workers of a group hold one epoch together. Each writes its own name beside the group's, so that the last one that
leaves can give the epoch back, and each writes by names of its own for each part of the ids (`Parts`).

A Milvus Lite folder is open in one process only; there the row alone says who writes.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from threading import Lock
from uuid import uuid4

from bartizan_connector.base.errors import BartizanError, Displaced, Retry, Stop, WrongUse
from bartizan_connector.store.audit import Balance
from bartizan_connector.store.collection import Head
from bartizan_connector.store.holder import SILENCE, Holder, let_go, ours
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling, is_missing
from bartizan_connector.store.milvus.ledger import LEASE_ID, LEASE_VERSION, Entry, Ledger
from bartizan_connector.store.milvus.names import EPOCH_DIGITS, WRITERS, Names, epoch_of, marker_of
from bartizan_connector.store.milvus.parts import Parts

_TURNS = 5
_GRACE_SECONDS = 2.0
"""How long somebody may take between making the alias and writing its name; who is slower is fenced off unharmed."""
_SETTLE_SECONDS = 0.5
"""What a writer that was succeeded alive had under way when its alias was dropped is done by then."""
_HOST_LETTERS = 64
_GROUP = "behalf of group "
_in_turn = Lock()
"""For Milvus Lite, where two back-ends of one process may open one folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The row of the ledger that says who writes, or what the last one left."""

    epoch: int
    holder: Holder | None = None
    balance: Balance | None = None

    def entry(self, id: str = LEASE_ID) -> Entry:
        """As it is stored: in the field of the hash, which every ledger has."""
        if (holder := self.holder) is not None:
            host = holder.host.encode("ascii", "replace").decode()[:_HOST_LETTERS]
            facts: list[object] = [holder.token, holder.pid, host, holder.begun, holder.since, holder.seen]
        else:
            facts = [self.balance.rows, self.balance.live, self.balance.deleted] if self.balance else []
        text = json.dumps([self.epoch, *facts], separators=(",", ":"))
        return Entry(Head(id=id, version=LEASE_VERSION, hash=text, deleted=True), 0)

    @classmethod
    def of(cls, entry: Entry) -> "Record":
        epoch, *facts = json.loads(entry.head.hash)
        if len(facts) == 3:
            rows, live, deleted = facts
            return cls(epoch=epoch, balance=Balance(rows=rows, live=live, deleted=deleted))
        if not facts:
            return cls(epoch=epoch)
        token, pid, host, begun, since, seen = facts
        return cls(epoch=epoch, holder=Holder(token=token, pid=pid, host=host, begun=begun, since=since, seen=seen))


class Lease:
    """The right of one opened back-end to write into one collection; called with the writer's lock held."""

    def __init__(self, connection: Connection, name: str, physical: str, ledger: Ledger, silence: float) -> None:
        self._connection = connection
        self._names = Names(connection)
        self._what = f"collection '{name}' at {connection.place}"
        self._physical = physical
        self._ledger = ledger
        self._silence = silence
        self._token = uuid4().hex
        self._group = ""
        self._member = uuid4().hex
        """Of a group, which one."""
        self._parts = Parts(self._names, (physical, ledger.name))
        self._epoch: int | None = None
        self._since = ""
        self._seen = 0.0
        self.rows = physical
        """What rows are written by."""

    @property
    def is_held(self) -> bool:
        return self._epoch is not None

    @property
    def renewal(self) -> float:
        """After so many seconds our name is written again: others may count by the usual silence, whatever ours is."""
        return min(self._silence, SILENCE) / 10

    def join(self, group: str) -> None:
        """Claim for that group from now on, whose members hold the lease together; "": alone."""
        if self._epoch is None:
            self._group = group
            self._token = hashlib.sha256(group.encode()).hexdigest()[:32] if group else uuid4().hex

    def claim(self) -> bool:
        """See that we may write, and say whether that is new; a Retry names who does."""
        if self._epoch is not None:
            if time.time() - self._seen > self.renewal:
                self._write(self._epoch)
            return False
        with _in_turn if self._connection.file else nullcontext():
            for _ in range(_TURNS):
                epoch, former = self._standing()
                if former is not None and self._group and former.token == self._token:
                    if self._writes_by(epoch):
                        return True
                    continue  # another has begun a newer epoch meanwhile
                if former is not None and former.may_live(time.time(), self._silence):
                    raise Retry(f"{self._what} is being written by {former}; wait until that has ended", after=2.0)
                if self._take(epoch + 1):
                    if former is not None:
                        time.sleep(_SETTLE_SECONDS)
                    return True
        raise Retry(f"{self._what} is claimed by several writers at once", after=2.0)

    def lost(self) -> Stop | None:
        """The error for a writer that was succeeded; None where we still hold the lease, or the collection is gone."""
        if self._epoch is None or self._names.describe(self.rows) or not self._names.describe(self._physical):
            return None
        record = self.read()
        self.forget()
        now = record.holder if record and record.holder else "who has ended since"
        return Stop(
            f"{self._what} is written by another now ({now}): this writer was silent for too long and has lost its "
            "place; nothing of this call was completed. Run again"
        )

    def take(self, part: str) -> bool:
        """As one of a group, be the only one who writes for that part of the ids; say whether that is new, so that what
        was read before counts no more. Who is alone is it anyway."""
        epoch = self._epoch
        if epoch is None or not self._group or self._connection.file is not None or self._parts.holds(part):
            return False
        try:
            self._parts.make(part, epoch)
            if max(self._epochs(self._physical).values(), default=0) > epoch:
                raise Retry(f"{self._what} is being claimed by another", after=2.0)
            if self._parts.clear(part):
                time.sleep(_SETTLE_SECONDS)
        except BaseException:
            with suppress(BartizanError):
                self._parts.leave(part)
            raise
        return True

    def leave_part(self, part: str) -> None:
        """Write for it no more."""
        self._parts.leave(part)

    @contextmanager
    def by(self, part: str | None) -> Iterator[None]:
        """Inside, what is written is written for that part; None: for no part."""
        if part is None or not self._group or self._connection.file is not None:
            yield
            return
        if not self._parts.holds(part):
            raise self._displaced(part)
        whole = self.rows, self._ledger.written
        self.rows, self._ledger.written = self._parts.aliases(part)
        try:
            yield
        finally:
            self.rows, self._ledger.written = whole

    def displaced(self, part: str | None) -> Displaced | None:
        """The error for who wrote for a part that another writes for by now; None where that is not so."""
        if part is None or not self._parts.holds(part) or self._parts.stand(part):
            return None
        self._parts.forget(part)
        return self._displaced(part)

    def _displaced(self, part: str) -> Displaced:
        return Displaced(f"{part} of {self._what} is written by another worker of group {self._group} now")

    def read(self) -> Record | None:
        """Who writes, or what the last one left; None where nobody ever did."""
        entry = self._ledger.read([LEASE_ID]).get(LEASE_ID)
        return Record.of(entry) if entry else None

    def leave(self) -> bool:
        """Be none of those who write, and say whether none is left; `release` follows where that is so."""
        self._parts.leave_all()
        if not self._group:
            return True
        self._ledger.remove([self._entry_id])  # first: of those who leave together, the last to look finds nobody
        members, now = self._ledger.members(), time.time()
        ended = [id for id, each in members.items() if not _lives(each, now, self._silence)]
        self._ledger.remove(ended)
        return not (members.keys() - {*ended, self._entry_id})

    def release(self, balance: Balance | None) -> None:
        """Let the next one write; `balance`: what is there now."""
        if self._epoch is None:
            return
        before = self._ledger.read([LEASE_ID]) if self._group else {}
        self._ledger.write([Record(epoch=self._epoch, balance=balance).entry()])
        if self._group and self._ledger.members():  # who has joined meanwhile counts on it
            self._ledger.write(list(before.values()))

    def forget(self) -> None:
        """Hold it no more, whatever the ledger says."""
        self._epoch = None
        self.rows = self._physical
        self._ledger.written = self._ledger.name
        self._parts.forget_all()
        let_go(self._token)
        let_go(self._member)

    @property
    def _entry_id(self) -> str:
        """Under which a member's own name stands."""
        return f"{LEASE_ID}: {self._member}"

    def _standing(self) -> tuple[int, Holder | None]:
        """The highest epoch, and who holds it; waits for one who has made its alias and not yet written its name."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while True:
            made, record = self._highest(), self.read()
            named = record.epoch if record else 0
            if named >= made or time.monotonic() > deadline:
                return max(named, made), record.holder if record and named >= made else None
            time.sleep(_GRACE_SECONDS / 20)

    def _highest(self) -> int:
        if self._connection.file is not None:
            return 0
        marked = (int(marker[-EPOCH_DIGITS:]) for marker in self._names.markers_of(self._physical))
        return max([*marked, *self._epochs(self._physical).values()], default=0)

    def _epochs(self, collection: str) -> dict[str, int]:
        """Each alias that somebody writes by, and since when."""
        aliases = self._names.every_alias_of(collection)
        return {alias: epoch for alias in aliases if (epoch := epoch_of(alias)) is not None}

    def _move_marker(self, epoch: int) -> bool:
        """Whether it was us who moved it to that epoch."""
        former, marker = marker_of(self._physical, epoch - 1), marker_of(self._physical, epoch)
        client, timeout = self._connection.client, self._connection.timeout
        if not self._names.markers_of(self._physical):
            with calling(self._connection.place):
                client.create_collection(former, schema=self._ledger.marker_schema(), timeout=timeout)
        try:
            with calling(self._connection.place):
                client.rename_collection(former, marker, timeout=timeout)
        except WrongUse:
            raise
        except Stop:
            there = self._names.markers_of(self._physical)
            if former in there and marker not in there:
                raise
            return False
        return True

    def _take(self, epoch: int) -> bool:
        """Whether the epoch became ours."""
        if self._connection.file is None:
            if not self._move_marker(epoch):
                return False
            both = (self._physical, self._ledger.name)
            for collection in both:
                self._names.claim(alias_of(collection, epoch), collection)
            if self._highest() > epoch:  # what was seen was long ago
                for collection in both:
                    self._names.drop_alias(alias_of(collection, epoch), collection)
                return False
            for collection in both:
                for alias, older in self._epochs(collection).items():
                    if older < epoch:
                        self._names.drop_alias(alias, collection)
        return self._writes_by(epoch)  # if not, somebody took us for dead already

    def _writes_by(self, epoch: int) -> bool:
        """Write by the aliases of that epoch, our name first; false where they are gone by now."""
        if self._connection.file is None:
            self.rows, self._ledger.written = alias_of(self._physical, epoch), alias_of(self._ledger.name, epoch)
        self._since = ""
        try:
            self._write(epoch)
        except BartizanError as error:
            self.forget()
            if is_missing(error):
                return False
            raise
        return True

    def _write(self, epoch: int) -> None:
        us = ours(self._token, self._since)
        names = []
        if self._group:
            names.append(Record(epoch=epoch, holder=ours(self._member, self._since)).entry(self._entry_id))
            us = replace(us, host=f"{_GROUP}{self._group}")  # of all of whom none is known to have ended
        self._ledger.write([Record(epoch=epoch, holder=us).entry(), *names])
        self._epoch, self._since, self._seen = epoch, us.since, us.seen


def _lives(entry: Entry, now: float, silence: float) -> bool:
    holder = Record.of(entry).holder
    return holder is not None and holder.may_live(now, silence)


def alias_of(collection: str, epoch: int) -> str:
    """By what name the writer of that epoch writes. No alias is the beginning of another, nor begins as a collection is
    called: a server of 2.3 that drops one looks at, and forgets, all that begin with it."""
    which = hashlib.sha256(collection.encode()).hexdigest()[:16]
    return f"{WRITERS}{which}_{epoch:0{EPOCH_DIGITS}d}"
