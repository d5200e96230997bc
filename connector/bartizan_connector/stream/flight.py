"""A batch in flight: the one value that passes through the steps, and what they say of it; in one step at a time."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from bartizan_connector.base.errors import Reject, Stop
from bartizan_connector.store.collection import Collection, Head
from bartizan_connector.stream.fence import Plan
from bartizan_connector.stream.records import Change, Cut, Put, decode
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.towers import Encoded
from bartizan_connector.stream.versions import time_of


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One batch between its reading and its commit."""

    batch: Batch
    step: Literal["look", "prepare", "prepared", "write"] = "look"
    """Where it is, or what it waits for; once prepared, for its turn to be written."""
    alive: list[tuple[Message, Change]] = field(default_factory=list)
    """Each message that is a record, with the change that it asks for."""
    named: tuple[str, ...] = ()
    """The ids of the documents that it holds, whatever becomes of them; not of what it removes."""
    dead: list[tuple[Message, str]] = field(default_factory=list)
    """What cannot be written, with the reason; set aside by the commit."""
    foreseen: Mapping[str, Head] = field(default_factory=dict)
    """The heads that it is prepared by."""
    encoded: dict[str, Encoded] = field(default_factory=dict)
    """By hash."""
    refused: dict[str, str] = field(default_factory=dict)
    """Hash → why a tower gives no vector."""
    done: Plan = field(default_factory=Plan)
    """What was written."""
    stored: Mapping[str, Head] = field(default_factory=dict)
    """The heads that decided."""
    lost: bool = False
    """Whether its partition is another reader's by now: it goes no further."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Spent in each step."""

    def decode(self, collection: Collection, cut: Cut | None = None) -> None:
        """Tell records from what is none; `cut`: how their texts are cut."""
        for message in self.batch.messages:
            try:
                self.alive.append((message, decode(message, collection, cut)))
            except Reject as error:
                self.dead.append((message, error.reason))
        self.named = tuple(change.id for _, change in self.alive if isinstance(change, Put))

    @property
    def changes(self) -> list[Change]:
        """What the messages that are alive ask for, in their order."""
        return [change for _, change in self.alive]

    @property
    def doubtful(self) -> frozenset[str]:
        """The ids of which something was given before that may be forgotten."""
        return frozenset(change.id for message, change in self.alive if message.doubtful)

    @property
    def ids(self) -> list[str]:
        """The ids that occur, each once."""
        return list(dict.fromkeys(change.id for _, change in self.alive))

    def set_aside(self, changes: Sequence[Change], reason: str) -> None:
        """These very changes can never be written."""
        self.dead += [(message, reason) for message, change in self.alive if any(change is each for each in changes)]
        self.alive = [pair for pair in self.alive if not any(pair[1] is each for each in changes)]

    def reject(self, error: Reject, todo: Plan) -> None:
        """Set aside what was tried of the ids that the error is about."""
        tried = todo.counted
        rejected = [tried[id] for id in error.ids if id in tried]
        if not rejected:
            raise Stop(f"something was rejected that is not in the batch ({', '.join(error.ids)}): {error}") from error
        self.set_aside(rejected, error.reason)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to the stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def report(self) -> Report:
        """What became of each of its messages."""
        read, done = len(self.batch.messages), self.done
        if self.lost:
            return Report(read=read, dropped=read, stages=dict(self.seconds))
        return Report(
            read=read,
            written=len(done.write),
            unchanged=len(done.advance) + len(done.known),
            stale=len(done.stale),
            deleted=len(done.delete),
            dead=len(self.dead),
            truncated=sum(self.encoded[put.hash].truncated for put, _ in done.write),
            stale_example=self._stale_example(),
            undeclared=Counter(key for _, put in self.alive if isinstance(put, Put) for key in put.undeclared),
            stages=dict(self.seconds),
        )

    def _stale_example(self) -> str:
        for message, change in self.alive:
            if any(change is each for each in self.done.stale[:1]):
                head = self.stored.get(change.id)
                if head is None or head.version < change.version:
                    return f"{message.position}: another line of the same id comes after it"
                return f"{message.position}: its version is {change.version}, and {_told(head)} is stored"
        return ""


def _told(head: Head) -> str:
    """The version of a head; one that was stamped, with the time that it means."""
    if not head.origin:
        return str(head.version)
    moment = time_of(head.version)
    return f"{head.version} (stamped {moment}; a _version of your own has to be higher than that)"


class Expected:
    """The heads that batches in flight are going to give to their ids; only the early plan leans on it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._heads: dict[str, tuple[Flight, Head]] = {}

    def heads(self, ids: Sequence[str]) -> dict[str, Head]:
        """What is to be expected of these ids, where anything is."""
        with self._lock:
            return {id: self._heads[id][1] for id in ids if id in self._heads}

    def add(self, flight: Flight, todo: Plan) -> None:
        """The flight is going to do this."""
        with self._lock:
            self._heads.update((head.id, (flight, head)) for head in todo.heads)

    def remove(self, flight: Flight) -> None:
        """It has, or never will."""
        with self._lock:
            self._heads = {id: entry for id, entry in self._heads.items() if entry[0] is not flight}
