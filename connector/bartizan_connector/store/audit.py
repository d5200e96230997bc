"""The seam of verification: everything that a store holds, heads and rows apart, nothing taken on trust.

A store whose parts can come apart offers it beside its verbs: `audit()` gives an Audit of the opened collection.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.collection import Collection, Head, Leg, Row

PAGE = 256
"""Ids that are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One id that has a head, or the beginning of one, with the rows that this accounts for."""

    id: str
    head: Head | None
    """None: a write of the id was announced and never completed."""
    reach: int | None = None
    """How many chunks the head was completed with; None where the store does not say."""
    rows: tuple[Row, ...] = ()
    """With their vectors; one that cannot be read is left out of its row."""
    worded: bool = True
    """Whether the store's own words are those of the rows; true where it keeps none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A row for which no head accounts."""

    id: str
    chunk: int
    number: int = 0
    """The store's own for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What was there when the last writer ended in good order."""

    rows: int
    live: int
    deleted: int


class Audit(Protocol):
    """One collection, looked at whole in bounded memory. Others may read meanwhile; what a writer changes meanwhile may
    look like damage, so who finds some looks again."""

    def standings(self) -> Iterator[list[Standing]]:
        """Every id that has a head, a page at a time."""
        ...

    def heads(self) -> Iterator[list[Head]]:
        """Every head, by rising id, a page at a time, and no rows."""
        ...

    def again(self, ids: Sequence[str]) -> list[Standing]:
        """The same of these ids, as of now."""
        ...

    def strays(self) -> Iterator[list[Stray]]:
        """Every row for which no head accounts, a page at a time."""
        ...

    def remove(self, strays: Sequence[Stray]) -> None:
        """Take these rows away, whatever the heads say."""
        ...

    def balance(self) -> Balance | None:
        """What the last writer left; None where it was cut off, or left before this was written down."""
        ...

    def now(self) -> Balance:
        """What is there."""
        ...


@runtime_checkable
class Audited(Protocol):
    """A store that can be verified."""

    collection: Collection

    def audit(self) -> Audit: ...


def read_vectors(legs: Sequence[Leg], read: Callable[[Leg], Vector | None]) -> dict[str, Vector]:
    """Leg → vector, of those that can be read as one."""
    found: dict[str, Vector] = {}
    for leg in legs:
        try:
            vector = read(leg)
        except (WrongUse, ValueError, TypeError):
            continue
        if vector is not None:
            found[leg.name] = vector
    return found
