"""The seam of reading: a source gives batches of raw messages, each of one partition, at least once and in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One raw change as the source holds it. A missing value deletes the key.

    Sources of all kinds share one domain of versions: milliseconds since 1970 × 2²⁰, plus a number that grows within
    the millisecond. So a file that is loaded first and a topic that follows it agree on what is newer."""

    position: str
    """Where it came from, for people: `corpus.jsonl:17`, `docs[3]@1204`."""
    value: bytes | None
    key: str | None = None
    version: int
    """When it was written, in that domain (`versions.stamp` gives it); a version of the record's own goes before it."""
    origin: str = ""
    """The sequence that `offset` counts in, the same at every reading: a topic's partition, one state of a file. Within
    an origin the offset alone decides what is newer, whatever the clocks said; empty: there is no such sequence.
    Where a sequence can begin anew (an edited file, a topic that was made again), its state follows after a `#`;
    whatever is read in another state is newer."""
    offset: int = 0
    """Grows with every message of the origin; the same message has the same offset when it comes again."""
    headers: Mapping[str, bytes] = field(default_factory=dict)
    timestamp: float | None = None
    """When it was written, seconds since 1970, where the source knows; for measuring freshness."""
    late: bool = False
    """Whether it was set aside and comes after its turn: that it arrives now is no sign that it is newer."""
    doubtful: bool = False
    """Whether it was given before, and what was written of it then may be forgotten: it is written again, even where
    the store says that it is there."""
    fault: str | None = None
    """Why the source itself cannot deliver the change (a line too long to read); `value` is its beginning then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Messages of one partition that are written and committed together."""

    messages: tuple[Message, ...]
    partition: str = ""
    """Batches of one partition are committed in the order they were given; those of two are independent."""
    generation: int = 0
    """Which assignment of the partition the batch was read under, for `owns`; grows with every assignment."""


class Source(Protocol):
    """Where changes come from. All calls but `close` are made from one thread."""

    @property
    def ended(self) -> bool:
        """Whether no further batch will come, unless something is given again; known at the latest when `poll` gives
        None; false for a source that is followed."""
        ...

    @property
    def dead_letters(self) -> str:
        """Where messages are set aside, for people."""
        ...

    def backlog(self) -> int | None:
        """About how many messages are still to be given; None where that is not known."""
        ...

    def poll(self, timeout: float) -> Batch | None:
        """The next batch of some partition, oldest first; None when there was none within `timeout` seconds. Messages
        that were not committed come again after a restart, or at whoever takes the partition over."""
        ...

    def owns(self, batch: Batch) -> bool:
        """Whether the batch's partition is still ours, under the assignment the batch was read under. Asked before the
        batch is written, before it is committed, and every now and then while nothing can be read because enough is in
        flight: a source that has to show signs of life does so here. A batch that is not owned any more is dropped with
        all that follow it under the same assignment: the new owner reads them again."""
        ...

    def commit(self, batch: Batch) -> None:
        """Everything in the batch, and in those of its partition before it, is durable elsewhere."""
        ...

    def dead_letter(self, message: Message, reason: str) -> None:
        """Set a message aside that can never be written, with the reason; called right before its batch's commit, and
        durable by it."""
        ...

    def close(self) -> None:
        """Let go; what was not committed comes again. Closing twice is fine."""
        ...


@runtime_checkable
class Noting(Protocol):
    """What a source has besides when it remembers what was given to a store that may yet forget it. Then `commit` comes
    later than the write, and speaks for all batches of the partition up to that one."""

    def note(self, batch: Batch) -> None:
        """The batch is about to be written. Whoever is given it again, here or elsewhere, is told that it is doubtful,
        until it is committed. May find that the partition is not ours any more."""
        ...

    def give_again(self, partition: str) -> None:
        """What was noted of it and not committed shall be given again, under a new assignment."""
        ...


@runtime_checkable
class Judging(Protocol):
    """What a source has besides when it can tell that it is not what it was taken for."""

    def verdict(self) -> str | None:
        """What is wrong with what was read as a whole, asked when it has ended; a run with a verdict has failed."""
        ...


@runtime_checkable
class Sized(Protocol):
    """What a source has besides when the size of its batches can be changed while it is read."""

    batch_size: int
    """At most so many messages a batch; what it is at first is the most that it shall ever be."""


@runtime_checkable
class Lasting(Protocol):
    """What a source has besides when it can tell whether the same would be read again."""

    @property
    def state(self) -> str:
        """What it is now: as long as this is the same, so is everything that is read from its beginning to its end."""
        ...


@runtime_checkable
class Measured(Protocol):
    """What a source has besides when it knows how far behind it is. May be asked from any thread, and never waits."""

    @property
    def lags(self) -> Mapping[str, int] | None:
        """Partition → messages that are not committed yet, as last heard; None until it is known which are ours."""
        ...

    @property
    def restarts(self) -> int:
        """How often the connection had to be made anew."""
        ...


@runtime_checkable
class Shared(Protocol):
    """What a source has besides when several workers read it side by side, each partitions of its own."""

    @property
    def group(self) -> str:
        """What they have in common, and nobody else: they may write into one collection at the same time."""
        ...


@runtime_checkable
class Yielding(Protocol):
    """What a source has besides when its partitions can be taken away by somebody who waits until it lets go."""

    def before_yielding(self, settle: Callable[[str], None]) -> None:
        """Called once, before the first `poll`. From then on the source calls `settle(partition)` within `poll`, before
        it lets a partition go: when that returns, nothing of the partition is being written, what was written is
        committed (`commit` is called meanwhile), and nothing more of the assignment will be. A source that cannot wait
        for that any longer says so by `owns`, which is asked meanwhile; then nothing more is committed either."""
        ...
