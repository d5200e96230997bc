"""Which collections a re-embedding is about: the one that stands under the name, the next one, and the former one.

All that is remembered are names, which every back-end has: the next collection has one that says for which contract it
is made, so that it is found again whatever became of who made it; the former one has another from before the moment in
which the name is moved. None begins as another does, nor as a collection's own: a Milvus server of 2.3 that drops a
name forgets all that begin with it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Collection

State = Literal["stands", "absent", "filling", "swapped"]
NEXT, FORMER = "bartizan_next_", "bartizan_former_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What stands where, at one moment."""

    wanted: Collection
    """The contract of the new towers, under the name."""
    serving: str
    """The physical name of what stands under the name."""
    contract: Collection
    """Its contract."""
    next: str | None
    """What is made for the new towers: also when it stands under the name by now, and when it is the former one, and
    somebody goes back to it."""
    former: str | None
    """What stood there before; None where nothing did, or it was dropped, or stands there again."""

    @property
    def state(self) -> State:
        """`stands`: the spaces of the new towers are those that stand there, and nothing is left of others. `absent`:
        nothing was made for them yet. `filling`: it was, and does not stand there. `swapped`: it does, and the former
        one is kept."""
        if same_spaces(self.contract, self.wanted):
            return "stands" if self.former is None else "swapped"
        return "absent" if self.next is None else "filling"

    @property
    def other(self) -> str | None:
        """The one of the two that does not stand under the name."""
        return {"filling": self.next, "swapped": self.former}.get(self.state)


def look(backend: Backend, wanted: Collection) -> Place:
    """What stands where now; WrongUse where nothing stands under the name."""
    aliases, contracts = backend.aliases(), backend.collections()
    serving = aliases.get(wanted.name, wanted.name)
    if serving not in contracts:
        raise WrongUse(f"there is no collection '{wanted.name}' to re-embed; bartizan ingest makes it")
    former = _standing(aliases, contracts, former_name(wanted.name))
    next = _standing(aliases, contracts, next_name(wanted))
    if next is None and former is not None and same_spaces(contracts[former], wanted):
        next = former
    return Place(
        wanted=wanted,
        serving=serving,
        contract=contracts[serving],
        next=next,
        former=former if former != serving else None,
    )


def move(backend: Backend, name: str, *, expected: str, to: str) -> None:
    """Let the name stand for that collection, in one step, and read it back."""
    before = backend.aliases().get(name, name)
    if before != expected:
        raise Stop(f"'{name}' stands for {before} by now, not for {expected}; nothing was moved. Look again and repeat")
    backend.point(name, to)
    after = backend.aliases().get(name)
    if after != to:
        raise Stop(f"'{name}' was to stand for {to}, but stands for {after}; look at what else moves it, and repeat")


def same_spaces(one: Collection, other: Collection) -> bool:
    """Whether each leg of one is a leg of the other, of the same space: vectors need not be made anew."""
    return _spaces(one) == _spaces(other)


def next_name(wanted: Collection) -> str:
    """What the collection for that contract is called until it stands under its own name."""
    return NEXT + _digest(f"{wanted.name} {sorted(_spaces(wanted).items())}")


def former_name(name: str) -> str:
    """What the collection is called that stood under the name before."""
    return FORMER + _digest(name)


def _spaces(collection: Collection) -> dict[str, tuple[str, int, str]]:
    return {leg.name: (leg.kind, leg.dim, leg.space_id) for leg in collection.legs}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _standing(aliases: Mapping[str, str], contracts: Mapping[str, Collection], name: str) -> str | None:
    physical = aliases.get(name)
    return physical if physical in contracts else None
