"""Names and physical names in Milvus: an alias is resolved, made and moved here, and nowhere else."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from bartizan_connector.base.errors import BartizanError, Stop, WrongUse
from bartizan_connector.store.collection import Collection, is_physical_name
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling, is_missing, is_taken
from bartizan_connector.store.milvus.ledger import ledger_name
from bartizan_connector.store.milvus.schema import CONTRACT_PROPERTY, stored_contract

WRITERS, PARTS, EPOCH_DIGITS = "bartizan_writer_", "bartizan_part_", 10
_WRITERS = re.compile(rf"(?:{WRITERS}|{PARTS})[0-9a-f]{{16}}_(\d{{{EPOCH_DIGITS}}})(?:_[0-9a-f]{{32}})?")
"""Aliases that writers write by, and no person gave."""
_one_at_a_time = Lock()
"""A server makes or moves an alias in one step. Milvus Lite looks and then writes; it is served to one process only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A collection of ours as it stands in Milvus."""

    physical: str
    number: int
    """A server's own for it, never used again; 0 in a Milvus Lite file."""
    contract: Collection

    @property
    def is_unique(self) -> bool:
        """Whether the physical name can never become another's: 0.1.0 used the name itself, which can."""
        return is_physical_name(self.physical, self.contract.name)


class Names:
    """Which collection a name stands for at one address."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, name: str) -> Found | None:
        """The collection of that name or physical name; one that is not ours is a Stop."""
        described = self.describe(name)
        if described is None:
            return None
        physical = str(described["collection_name"])
        if physical == name and name in described.get("aliases", ()):  # some servers repeat the name that was asked
            with calling(self._connection.place):
                alias = self._connection.client.describe_alias(name, timeout=self._connection.timeout)
            physical = str(alias["collection_name"])
        contract = stored_contract(described, self._connection.place)
        return Found(physical=physical, number=int(described.get("collection_id") or 0), contract=contract)

    def _beginning_with(self, alias: str, dropped: str) -> dict[str, str]:
        """The aliases of other collections that begin with this one. A server of 2.3 forgets them with it, and knows
        them no more when it is started again, unless they are written anew."""
        if self._connection.file is not None:
            return {}
        with calling(self._connection.place):
            known = self._connection.client.list_aliases(timeout=self._connection.timeout)["aliases"]
        others: dict[str, str] = {}
        for other in known:
            if other != alias and other.startswith(alias):
                with calling(self._connection.place):
                    told = self._connection.client.describe_alias(other, timeout=self._connection.timeout)
                others[other] = str(told["collection_name"])
        return {other: target for other, target in others.items() if target not in (dropped, ledger_name(dropped))}

    def describe(self, name: str) -> Mapping[str, Any] | None:
        """What Milvus says of it; None where there is nothing of that name."""
        try:
            with calling(self._connection.place):
                described: Mapping[str, Any] = self._connection.client.describe_collection(
                    name, timeout=self._connection.timeout
                )
        except Stop as error:
            if is_missing(error):
                return None
            raise
        return described

    def claim(self, name: str, physical: str) -> bool:
        """Make the name stand for that collection, unless it stands for one already: whether it was made."""
        try:
            with _one_at_a_time, calling(self._connection.place):
                self._connection.client.create_alias(physical, name, timeout=self._connection.timeout)
                self._connection.sync_names()
        except BartizanError as error:
            if is_taken(error):
                return False
            raise
        return True

    def move(self, name: str, physical: str) -> None:
        """Make the name, which stands for something, stand for that collection from now on."""
        with _one_at_a_time, calling(self._connection.place):
            self._connection.client.alter_alias(physical, name, timeout=self._connection.timeout)
            self._connection.sync_names()

    def point(self, name: str, physical: str) -> None:
        """Make the name stand for that collection, whatever it stood for."""
        found = self.find(physical)
        if found is None or found.physical != physical:
            raise WrongUse(
                f"there is no collection '{physical}' at {self._connection.place}, so no name can stand for it"
            )
        standing = self.find(name)
        if standing is not None and standing.physical == name:
            raise WrongUse(
                f"'{name}' at {self._connection.place} is a collection of its own, not a name for one; "
                "choose another name"
            )
        if not self.claim(name, physical):
            self.move(name, physical)

    def collections(self) -> dict[str, Collection]:
        """The contract of every collection of ours, by physical name."""
        with calling(self._connection.place):
            names = self._connection.client.list_collections(timeout=self._connection.timeout)
        described = {name: self.describe(name) for name in names}
        return {
            name: stored_contract(told, self._connection.place)
            for name, told in described.items()
            if told is not None and CONTRACT_PROPERTY in told.get("properties", {})
        }

    def aliases(self) -> dict[str, str]:
        """Name → physical name of every collection of ours."""
        return {alias: physical for physical in self.collections() for alias in self.aliases_of(physical)}

    def aliases_of(self, physical: str) -> list[str]:
        """Every name of that collection that a person may have given."""
        return [alias for alias in self.every_alias_of(physical) if epoch_of(alias) is None]

    def every_alias_of(self, physical: str) -> list[str]:
        """Every alias, those that its writers write by too."""
        with calling(self._connection.place):
            told = self._connection.client.list_aliases(physical, timeout=self._connection.timeout)
        return list(told["aliases"])

    def drop_alias(self, alias: str, physical: str) -> None:
        """Of several who drop it at once one does, and nobody minds."""
        try:
            with calling(self._connection.place):
                self._connection.client.drop_alias(alias, timeout=self._connection.timeout)
        except WrongUse:
            raise
        except Stop:
            if self.describe(physical) and alias in self.every_alias_of(physical):
                raise

    def markers_of(self, physical: str) -> list[str]:
        """The collection whose name says which epoch of its writers is; there may be one more that a race left."""
        with calling(self._connection.place):
            names = self._connection.client.list_collections(timeout=self._connection.timeout)
        beginning = marker_of(physical, 0)[:-EPOCH_DIGITS]
        return [name for name in names if name.startswith(beginning)]

    def drop(self, name: str) -> None:
        """Names first, since newer servers keep what still has one; the ledger last, since rows never stand without."""
        client, timeout, place = self._connection.client, self._connection.timeout, self._connection.place
        found = self.find(name)
        if found is None:
            raise WrongUse(f"there is no collection '{name}' at {place}")
        for made in (found.physical, ledger_name(found.physical)):
            for alias in self.every_alias_of(made) if self.describe(made) else ():
                others = self._beginning_with(alias, found.physical)
                with calling(place):
                    client.drop_alias(alias, timeout=timeout)
                for other, target in others.items():
                    self.move(other, target)
        markers = self.markers_of(found.physical) if self._connection.file is None else []
        for made in (*markers, found.physical, ledger_name(found.physical)):
            with calling(place):
                client.drop_collection(made, timeout=timeout)


def epoch_of(alias: str) -> int | None:
    """The epoch of the writers who write by that alias; None for a name that a person gave."""
    found = _WRITERS.fullmatch(alias)
    return int(found[1]) if found else None


def marker_of(physical: str, epoch: int) -> str:
    """What the marker is called while that epoch lasts."""
    which = hashlib.sha256(physical.encode()).hexdigest()[:16]
    return f"bartizan_epoch_{which}_{epoch:0{EPOCH_DIGITS}d}"
