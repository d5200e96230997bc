"""Brings a collection and its ledger into being, or checks that they are what is wanted."""

from contextlib import suppress
from typing import Any

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.store.checks import check_stored
from bartizan_connector.store.collection import Collection
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.expression import check_names
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import Ledger
from bartizan_connector.store.milvus.schema import IndexChoice, index_of, properties_of, schema_of, stored_contract

_OLDEST_SPARSE_SERVER = (2, 4)


class Preparation:
    """The steps of `ensure` for one collection. Each can be repeated, so what a kill cut off is completed next time."""

    def __init__(self, connection: Connection, collection: Collection, index: IndexChoice) -> None:
        self._connection = connection
        self._collection = collection
        self._index = index
        self._ledger = Ledger(connection, collection.name)

    def run(self, *, create: bool) -> None:
        """Check the stored contract, or make the collection; then make sure that it can be searched."""
        name, place = self._collection.name, self._connection.place
        check_names(self._collection)
        if self._exists(name):
            check_stored(stored_contract(self._described(), place), self._collection)
            if not self._exists(self._ledger.name):
                raise Stop(
                    f"collection '{name}' at {place} has lost its ledger '{self._ledger.name}', without which no "
                    f"document's version is known; drop '{name}' and ingest again"
                )
            self._complete()
        elif create:
            self._refuse_sparse_on_old_servers()
            self._create()
        else:
            raise WrongUse(f"there is no collection '{name}' at {place}; ingest documents first")

    def _create(self) -> None:
        """The ledger first, so that rows never stand without one. What stays unusable is taken away again."""
        name, ledger = self._collection.name, self._ledger.name
        client, timeout = self._connection.client, self._connection.timeout
        try:
            with calling(self._connection.place):
                if self._exists(ledger):  # a left-over one would say of documents that are not there: unchanged
                    client.drop_collection(ledger, timeout=timeout)
                client.create_collection(ledger, schema=self._ledger.schema(), timeout=timeout)
                client.create_collection(
                    name,
                    schema=schema_of(self._collection),
                    properties=properties_of(self._collection),
                    timeout=timeout,
                )
            self._complete()
        except Retry:  # perhaps another process completes the same collection now: it is not ours to drop
            raise
        except BartizanError:
            for made in (name, ledger):
                with suppress(BartizanError), calling(self._connection.place):
                    client.drop_collection(made, timeout=timeout)
            raise

    def _complete(self) -> None:
        """Indexes and loading; both collections load at the same time."""
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            self._index_field(self._ledger.name, "dummy", self._ledger.index())
            for leg in self._collection.legs:
                index = index_of(leg, self._index, in_file=self._connection.file is not None)
                self._index_field(self._collection.name, leg.name, index)
            client.load_collection(self._ledger.name, timeout=timeout, _async=True)
            client.load_collection(self._collection.name, timeout=timeout)
            client.load_collection(self._ledger.name, timeout=timeout)

    def _index_field(self, collection: str, field: str, index: Any) -> None:
        client, timeout = self._connection.client, self._connection.timeout
        if not client.list_indexes(collection, field_name=field, timeout=timeout):
            client.create_index(collection, index, timeout=timeout, sync=False)

    def _exists(self, name: str) -> bool:
        with calling(self._connection.place):
            return bool(self._connection.client.has_collection(name, timeout=self._connection.timeout))

    def _described(self) -> dict[str, Any]:
        with calling(self._connection.place):
            described: dict[str, Any] = self._connection.client.describe_collection(
                self._collection.name, timeout=self._connection.timeout
            )
            return described

    def _refuse_sparse_on_old_servers(self) -> None:
        if self._connection.file is not None or all(leg.kind == "dense" for leg in self._collection.legs):
            return
        with calling(self._connection.place):
            version = str(self._connection.client.get_server_version(timeout=self._connection.timeout))
        numbers = version.lstrip("v").split("-")[0].split(".")[:2]
        if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < _OLDEST_SPARSE_SERVER:
            raise Stop(
                f"the Milvus server at {self._connection.place} is {version}, sparse vectors need "
                "2.4 or newer; upgrade it, or use a Milvus Lite file"
            )
