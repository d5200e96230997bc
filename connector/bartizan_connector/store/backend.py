"""The seam of storing: a back-end holds collections, a store is one of them, opened.

A collection has a name, which people give, and a physical name, which is made anew with every creation and never used
again. The name is an alias of the physical one. `open` resolves it once; the store keeps to the physical name, so that
nobody who has a collection open ever reads from, or writes to, another one that has taken its name since.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bartizan_connector.space.vectors import Vector, Vectors
from bartizan_connector.store.collection import Collection, Document, Head, Hit, Row
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.kinds import Value
from bartizan_connector.store.profiles import Profile

if TYPE_CHECKING:
    import numpy as np


class Writes(Protocol):
    """What a store does that changes something, as it is told there, and the heads by which that is decided."""

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        """As the one who writes here has to know them. What it has read or written since it became that one need not be
        asked for again: nobody else changes it, and if somebody has taken its place, its writes are refused."""
        ...

    def upsert(self, rows: Sequence[Row]) -> None: ...

    def touch(self, heads: Sequence[Head]) -> None: ...

    def delete(self, heads: Sequence[Head]) -> None: ...


class Store(Protocol):
    """One collection, opened. For every leg a bigger score is better, and ties are in order of (id, chunk). Safe to
    share between threads; the conformance suite (`bartizan_connector.testing`) holds every store to it.

    Every write and every search of a collection that was dropped or replaced since it was opened is refused:
    SpaceMismatch where what stands there now is of another space, else Stop; nothing is written then.
    """

    @property
    def collection(self) -> Collection:
        """The contract as it is stored."""
        ...

    @property
    def physical_name(self) -> str:
        """What the back-end calls it; never used again for another."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What a person should know of it: an index that is not as the configuration asks, for example."""
        ...

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        """What is known of these ids, as of now (own writes included); unknown ids are left out."""
        ...

    def claim(self, group: str = "") -> None:
        """Be the one who writes from now on, until all stores of the collection are closed in this back-end; a Retry
        names who is. Every write claims by itself; who decides by what `heads` says claims before it asks.
        Those of one `group` write side by side, where the back-end takes several writers at all: whatever gives them
        their changes keeps them apart, each id to one of them at a time."""
        ...

    def upsert(self, rows: Sequence[Row]) -> None:
        """Replace each id that occurs by exactly the rows given for it, and remember its head.
        A row given twice (same id and chunk): the last wins. Visible to `heads` and `get` at once, to `search` at the
        back-end's consistency. Reject names exactly the ids at fault, which keep the rows they had; the others may be
        written or not, so the call is made again without those. Where every row is refused, it is a Stop."""
        ...

    def touch(self, heads: Sequence[Head]) -> None:
        """Remember these heads exactly as given; the rows stay. A newer version with the same hash says that the
        content did not change; an empty hash says that the rows are about to change, so that after a crash halfway
        nothing is taken for unchanged."""
        ...

    def delete(self, heads: Sequence[Head]) -> None:
        """Remove these ids' rows and remember the head at which each was deleted. Missing ids are remembered too."""
        ...

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        """The k best rows for each vector. Vectors of another space raise SpaceMismatch before anything is searched.
        A sparse vector finds only rows that share a term with it."""
        ...

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> Mapping[str, Document]:
        """What is stored of these ids, as of now; ids without rows are left out. `vectors`: rows carry theirs."""
        ...

    def scan(self, filter: Filter | None = None, *, vectors: bool = False) -> Iterator[Document]:
        """Every document of which a row passes the filter, once and whole, in any order and with bounded memory. What
        is written meanwhile may be seen or not."""
        ...

    def count(self, filter: Filter | None = None) -> int:
        """How many rows pass the filter, as of now."""
        ...

    def purge(self, before: int, since: int = 0) -> int:
        """Forget the deleted ids whose version is below `before`, and not below `since`, and say how many. What is
        forgotten can be brought back by a replay of something older, so keep at least what the sources keep."""
        ...

    def reindex(self) -> None:
        """Build the indexes anew as they are configured now. A search meanwhile waits, or is a Retry."""
        ...

    def close(self) -> None:
        """Make what was written durable and fast to search, then let go. Closing twice is fine."""
        ...


@runtime_checkable
class Leased(Protocol):
    """What a store has besides when one writer at a time has the right to write into it."""

    def let_others_write(self) -> None:
        """Give the right back; the next write takes it again, if it is free then."""
        ...


@runtime_checkable
class Renewed(Protocol):
    """What a store has besides when its writer must be heard of every now and then, or is taken to have ended."""

    def renew(self) -> float:
        """As the one who writes, or as one of the group, show that we are there although nothing is written, and say
        after how many seconds to do so again. A Stop where another writes by now."""
        ...


@runtime_checkable
class Whole(Protocol):
    """What a store has besides when each call that writes is done as a whole or not at all, rows and heads together."""

    @property
    def writes_whole(self) -> bool:
        """Whether that is so: then no id is ever torn, and none is marked before its rows change."""
        ...


@runtime_checkable
class Sealed(Protocol):
    """What a store has besides when what it has acknowledged may yet be forgotten, until it is sealed."""

    @property
    def needs_seal(self) -> bool:
        """Whether that is so; where not, all that was acknowledged is durable."""
        ...

    def seal(self) -> None:
        """When this returns, everything that was written here before the call is durable. Takes seconds, in which
        others write and search. Forgotten where the server was another meanwhile: then nothing is known of what was
        written since the last seal, and the next one counts from now on."""
        ...


@runtime_checkable
class Parted(Protocol):
    """What a store has besides when the workers of a group write into it side by side, each parts of the ids."""

    def part(self, name: str) -> Writes:
        """Where this worker writes for that part, as the only one from now on: whatever another still sends for it the
        back-end refuses, so heads are asked for after this. Where another has done the same since, every write raises
        Displaced; then, if the part is still ours, this is called anew, and all is decided anew."""
        ...

    def leave_part(self, name: str) -> None:
        """Nothing more is written for that part, so that who takes it over has nobody to wait for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """What is known of the index of one leg."""

    leg: str
    kind: str
    """As a profile names it, or the back-end's own name; `exact`: every row is compared."""
    state: str
    """`finished`, `building`, `failed` (and why), `missing`."""
    rows: int
    """How many rows it is to cover."""
    indexed: int
    """How many it covers; the others are compared one by one."""
    build: Mapping[str, Value] = field(default_factory=dict)
    search: Mapping[str, Value] = field(default_factory=dict)
    """What a search for ten rows is asked with."""
    recall: float | None = None
    """Of the ten nearest rows, as it was measured when it was built."""
    sequence: int | None = None
    """Embedded: the change of the collection that it has reached."""
    note: str = ""
    """What a person should know: what was asked for, and what is there instead."""


@runtime_checkable
class Indexed(Protocol):
    """What a store has besides when the indexes of its legs can be looked at and built one by one."""

    def indexes(self) -> Sequence[IndexFacts]:
        """Of every leg, as of now."""
        ...

    def build(
        self,
        leg: str,
        profile: Profile | None = None,
        *,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> IndexFacts:
        """Build the index of one leg anew, as configured or by another profile, wait until it stands, and measure its
        recall. Where that is low the searches of this leg are made broader; where it stays low, or the index cannot be
        built, there is one of another kind, and the facts' note says why. `on_rows` hears of rows covered, of all."""
        ...

    def vectors(self, leg: str) -> "Iterator[tuple[list[tuple[str, int]], Sequence[Vector]]]":
        """(id, chunk) and vector of every row of a leg, a bounded number at a time, in any order."""
        ...

    def sample(self, leg: str, count: int, dice: "np.random.Generator") -> Sequence[Vector] | None:
        """So many vectors of a leg, drawn at random, where that is cheaper than reading all; else None."""
        ...


@runtime_checkable
class OneFile(Protocol):
    """What a back-end has besides when it is one file on this machine."""

    def backup(self, target: Path) -> None:
        """Copy all collections, as of one moment, into a new file; who reads or writes goes on meanwhile."""
        ...

    def compact(self) -> int:
        """Give the room back that nothing stands in any more, and say how many bytes. A writer waits meanwhile."""
        ...


class Overseer(Protocol):
    """For whom a collection is filled: knows what is on the server without a name, also after a kill, and may break the
    work off."""

    def note(self, physical: str) -> None:
        """Something of that name is about to be made."""
        ...

    def forget(self, physical: str) -> None:
        """Nothing of that name is there any more."""
        ...

    def heed(self) -> None:
        """Raise where the work shall end here; called every now and then, and whenever something is waited for."""
        ...


class Loading(Protocol):
    """The first fill of one collection from files. What it makes has no name until `give_name`, so nobody else reads or
    writes it. What fails, or is broken off, takes away what it made, as far as the server lets it: what the overseer
    was not told to forget may be there."""

    def standing(self) -> str | None:
        """The physical name of what has the collection's name already; None: it is to be filled for the first time."""
        ...

    def refuse_own(self, ids: Sequence[str]) -> None:
        """Reject those that the back-end keeps for itself, as its stores do."""
        ...

    def try_out(self, folder: Path, overseer: Overseer) -> None:
        """See that files can be loaded out of that folder, which costs seconds; a Stop says why not."""
        ...

    def load(
        self,
        folder: Path,
        documents: Iterable[Document],
        deleted: Iterable[Head],
        overseer: Overseer,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> str:
        """Fill a new collection with exactly these, each id once, see that they can be read there, and build its
        indexes; its physical name. `on_rows` hears of rows covered, of all. Files are left in the folder."""
        ...

    def drop(self, physical: str, overseer: Overseer) -> bool:
        """Take away what was made under that name, as far as it came; a Retry: not yet. False where it has a name by
        now: then it is left."""
        ...

    def give_name(self, physical: str) -> bool:
        """Let the collection's name stand for that one, in one step; false where another has taken it meanwhile."""
        ...


@runtime_checkable
class Loads(Protocol):
    """What a back-end has besides when the first rows of a collection can be loaded from files."""

    def loading(self, collection: Collection) -> Loading:
        """How that collection is filled; WrongUse where it never can be."""
        ...


class Backend(Protocol):
    """Where collections are kept."""

    def open(self, collection: Collection, *, create: bool = True, name: str = "") -> Store:
        """The collection of that name, or of the other `name` (also a physical one) that is given: it can be made
        before it gets its own. A leg of another space raises SpaceMismatch, another field or leg Stop; nothing is
        changed then. A missing collection is created, or, with `create=False` (who only reads must not make an empty
        one), refused as WrongUse. Of several who create at once one does, and all open what it made."""
        ...

    def collections(self) -> Mapping[str, Collection]:
        """The contract of every collection by its physical name; what is not ours is left out."""
        ...

    def aliases(self) -> Mapping[str, str]:
        """Name → physical name."""
        ...

    def point(self, name: str, physical_name: str) -> None:
        """Let the name stand for that collection from now on, in one step. Who has the former one open keeps it."""
        ...

    def drop(self, name: str) -> None:
        """Remove the collection that has this name (or physical name), all that belongs to it, and its names."""
        ...

    def close(self) -> None:
        """Close every store that is open, and let go. Closing twice is fine."""
        ...
