"""Brings a collection and its ledger into being, or checks that they are what is wanted."""

from contextlib import suppress
from dataclasses import dataclass

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.store.checks import check_stored
from bartizan_connector.store.collection import Collection, new_physical_name
from bartizan_connector.store.milvus.choices import Choices
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import check_names
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.store.milvus.ledger import Ledger, ledger_name
from bartizan_connector.store.milvus.names import Found, Names
from bartizan_connector.store.milvus.schema import properties_of, schema_of

_OLDEST_SPARSE_SERVER = (2, 4)
_TURNS = 5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A collection that can be written and searched."""

    found: Found
    ledger: Ledger
    indexes: Indexes


class Preparation:
    """Finds or makes collections. Nothing is ever made under a name that another could be making too: a collection gets
    a physical name of its own, and its name, in one step, once it is whole. Who is killed before leaves a collection
    without a name, which nobody opens and `collections` shows."""

    def __init__(self, connection: Connection, choices: Choices) -> None:
        self._connection = connection
        self._choices = choices
        self._names = Names(connection)

    def open(self, collection: Collection, name: str, *, create: bool) -> Prepared:
        """Check the stored contract, or make the collection, which gets that name or, without, its contract's; and make
        sure that it can be searched."""
        self.require_possible(collection)
        name = name or collection.name
        for _ in range(_TURNS):
            found = self._names.find(name)
            if found is not None:
                check_stored(found.contract, collection)
                try:
                    return self._completed(found)
                except Stop:
                    if self._names.find(name) == found:  # else it was dropped just now
                        raise
            elif create:
                self.require_makeable(collection)
                self._make(collection, name)
            else:
                raise WrongUse(f"there is no collection '{name}' at {self._connection.place}; ingest documents first")
        raise Retry(f"collection '{name}' at {self._connection.place} is made and dropped again by another")

    def require_possible(self, collection: Collection) -> None:
        """Refuse names and indexes that cannot be."""
        check_names(collection)
        orders = Indexes(self._connection, "", collection, self._choices)
        for leg in collection.legs:
            orders.require_harmless(leg, orders.wanted(leg))

    def _completed(self, found: Found) -> Prepared:
        description = self._names.describe(ledger_name(found.physical))
        if description is None:
            raise Stop(
                f"collection '{found.physical}' at {self._connection.place} has lost its ledger "
                f"'{ledger_name(found.physical)}', without which no document's version is known; restore that from a "
                "backup, or ingest the documents again under a new collection name"
            )
        ledger = Ledger.described(self._connection, found.physical, description)
        indexes = Indexes(self._connection, found.physical, found.contract, self._choices)
        indexes.complete()
        return Prepared(found, ledger, indexes)

    def _make(self, collection: Collection, name: str) -> None:
        """The ledger first, so that rows never stand without one; the name last, if nobody else's has it by then."""
        physical = new_physical_name(collection.name)
        try:
            self.create(collection, physical)
            Indexes(self._connection, physical, collection, self._choices).complete()
        except BaseException:
            self.take_away(physical)
            raise
        if not self.give_name(name, physical):
            self.take_away(physical)

    def create(self, collection: Collection, physical: str) -> None:
        """Rows and ledger, empty and without a name, an index, or anything that is loaded."""
        ledger = Ledger(self._connection, physical)
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            client.create_collection(ledger.name, schema=ledger.schema(), timeout=timeout)
            client.create_collection(
                physical, schema=schema_of(collection), properties=properties_of(collection), timeout=timeout
            )

    def give_name(self, name: str, physical: str) -> bool:
        """Whether the name stands for that collection now. A call that has not answered may have succeeded, and others
        may write by that name already: then nothing is taken away."""
        try:
            if self._names.claim(name, physical):
                return True
            if self._names.describe(name) is not None:
                return False
            self._names.move(name, physical)  # whose collection was taken away under it
        except Stop:
            self.take_away(physical)
            raise
        return True

    def take_away(self, physical: str) -> None:
        """What was made under a physical name that is nobody else's."""
        for made in (physical, ledger_name(physical)):
            with suppress(BartizanError), calling(self._connection.place):
                self._connection.client.drop_collection(made, timeout=self._connection.timeout)

    def require_makeable(self, collection: Collection) -> None:
        """Refuse sparse legs on a server that has none."""
        if self._connection.file is not None or all(leg.kind == "dense" for leg in collection.legs):
            return
        if self._connection.is_older_than(_OLDEST_SPARSE_SERVER):
            raise Stop(
                f"the Milvus server at {self._connection.place} is {self._connection.version}, sparse vectors need "
                "2.4 or newer; upgrade it, or use a Milvus Lite file"
            )
