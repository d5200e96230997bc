"""Brings a collection and its ledger into being, or checks that they are what is wanted."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.store.checks import check_stored
from bartizan_connector.store.collection import Collection, Leg, new_physical_name
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import check_names
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import Ledger, ledger_name
from bartizan_connector.store.milvus.names import Found, Names
from bartizan_connector.store.milvus.schema import IndexChoice, index_of, properties_of, schema_of

_OLDEST_SPARSE_SERVER = (2, 4)
_TURNS = 5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A collection that can be written and searched."""

    found: Found
    ledger: Ledger


class Preparation:
    """Finds or makes collections. Nothing is ever made under a name that another could be making too: a collection gets
    a physical name of its own, and its name, in one step, once it is whole. Who is killed before leaves a collection
    without a name, which nobody opens and `collections` shows."""

    def __init__(self, connection: Connection, index: IndexChoice) -> None:
        self._connection = connection
        self._index = index
        self._names = Names(connection)

    def open(self, collection: Collection, *, create: bool) -> Prepared:
        """Check the stored contract, or make the collection; then make sure that it can be searched."""
        check_names(collection)
        for _ in range(_TURNS):
            found = self._names.find(collection.name)
            if found is not None:
                check_stored(found.contract, collection)
                return self._completed(found)
            if not create:
                raise WrongUse(
                    f"there is no collection '{collection.name}' at {self._connection.place}; ingest documents first"
                )
            self._refuse_sparse_on_old_servers(collection)
            self._make(collection)
        raise Retry(f"collection '{collection.name}' at {self._connection.place} is made and dropped again by another")

    def index_types(self, found: Found) -> dict[str, str]:
        """Leg → type of the index that it has."""
        return {leg.name: self._index_type(found.physical, leg.name) for leg in found.contract.legs}

    def remarks(self, found: Found, has: Mapping[str, str]) -> list[str]:
        """The indexes that are not as the configuration asks; `has`: leg → type."""
        return [
            f"the {leg.name} leg of collection '{found.contract.name}' has a {has[leg.name]} index, but "
            f'[backend] index = "{self._index}" asks for {wanted} here; reindex() builds it anew'
            for leg in found.contract.legs
            if has[leg.name] != (wanted := str(self._wanted(leg)[0].index_type))
        ]

    def rebuild(self, found: Found) -> None:
        """Build the index of every leg as it is configured now. Nothing can be searched in between; what a kill cuts
        off is completed when the collection is opened next."""
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            client.release_collection(found.physical, timeout=timeout)
            for leg in found.contract.legs:
                for name in client.list_indexes(found.physical, field_name=leg.name, timeout=timeout):
                    client.drop_index(found.physical, name, timeout=timeout)
        self._complete(found.physical, found.contract)

    def _completed(self, found: Found) -> Prepared:
        description = self._names.describe(ledger_name(found.physical))
        if description is None:
            raise Stop(
                f"collection '{found.physical}' at {self._connection.place} has lost its ledger "
                f"'{ledger_name(found.physical)}', without which no document's version is known; restore that from a "
                "backup, or ingest the documents again under a new collection name"
            )
        ledger = Ledger.described(self._connection, found.physical, description)
        self._complete(found.physical, found.contract)
        return Prepared(found, ledger)

    def _make(self, collection: Collection) -> None:
        """The ledger first, so that rows never stand without one, the name last. What did not become the collection of
        that name is taken away again; its physical name is nobody else's."""
        physical = new_physical_name(collection.name)
        ledger = Ledger(self._connection, physical)
        client, timeout = self._connection.client, self._connection.timeout
        named = False
        try:
            with calling(self._connection.place):
                client.create_collection(ledger.name, schema=ledger.schema(), timeout=timeout)
                client.create_collection(
                    physical, schema=schema_of(collection), properties=properties_of(collection), timeout=timeout
                )
            self._complete(physical, collection)
            named = self._names.claim(collection.name, physical)
            if not named and self._names.describe(collection.name) is None:  # a name whose collection was taken away
                self._names.move(collection.name, physical)
                named = True
        finally:
            if not named:
                for made in (physical, ledger.name):
                    with suppress(BartizanError), calling(self._connection.place):
                        client.drop_collection(made, timeout=timeout)

    def _complete(self, physical: str, collection: Collection) -> None:
        """Indexes and loading; both collections load at the same time."""
        client, timeout = self._connection.client, self._connection.timeout
        ledger = Ledger(self._connection, physical)
        with calling(self._connection.place):
            self._index_field(ledger.name, "dummy", ledger.index())
            for leg in collection.legs:
                self._index_field(physical, leg.name, self._wanted(leg))
            client.load_collection(ledger.name, timeout=timeout, _async=True)
            client.load_collection(physical, timeout=timeout)
            client.load_collection(ledger.name, timeout=timeout)

    def _wanted(self, leg: Leg) -> Any:
        return index_of(leg, self._index, in_file=self._connection.file is not None)

    def _index_field(self, collection: str, field: str, index: Any) -> None:
        client, timeout = self._connection.client, self._connection.timeout
        if not client.list_indexes(collection, field_name=field, timeout=timeout):
            client.create_index(collection, index, timeout=timeout, sync=False)

    def _index_type(self, physical: str, field: str) -> str:
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            (name,) = client.list_indexes(physical, field_name=field, timeout=timeout)
            return str(client.describe_index(physical, name, timeout=timeout)["index_type"])

    def _refuse_sparse_on_old_servers(self, collection: Collection) -> None:
        if self._connection.file is not None or all(leg.kind == "dense" for leg in collection.legs):
            return
        with calling(self._connection.place):
            version = str(self._connection.client.get_server_version(timeout=self._connection.timeout))
        numbers = version.lstrip("v").split("-")[0].split(".")[:2]
        if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < _OLDEST_SPARSE_SERVER:
            raise Stop(
                f"the Milvus server at {self._connection.place} is {version}, sparse vectors need "
                "2.4 or newer; upgrade it, or use a Milvus Lite file"
            )
