"""The indexes of one collection: made where they are missing, compared with the configuration, built anew on demand."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TypeVar

from bartizan_connector.base.errors import Retry
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import Ledger
from bartizan_connector.store.milvus.schema import IndexChoice, index_of

T = TypeVar("T")


class Indexes:
    """All stores of a collection share one, so that their searches wait while it is built anew."""

    def __init__(self, connection: Connection, physical: str, collection: Collection, choice: IndexChoice) -> None:
        self._connection = connection
        self._physical = physical
        self._collection = collection
        self._choice = choice
        self._ledger = Ledger(connection, physical)
        self._searchable = Event()
        self._searchable.set()
        self._rebuilt = 0

    @property
    def is_searchable(self) -> bool:
        return self._searchable.is_set()

    def complete(self) -> None:
        """Make what is missing, and load; rows and ledger load at the same time."""
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            self._make(self._ledger.name, "dummy", self._ledger.index())
            for leg in self._collection.legs:
                self._make(self._physical, leg.name, self._wanted(leg))
            client.load_collection(self._ledger.name, timeout=timeout, _async=True)
            client.load_collection(self._physical, timeout=timeout)
            client.load_collection(self._ledger.name, timeout=timeout)

    def remarks(self) -> Sequence[str]:
        """The indexes that are not as the configuration asks."""
        return [
            f"the {leg.name} leg of collection '{self._collection.name}' has a {has} index, but "
            f'[backend] index = "{self._choice}" asks for {wanted} here; bartizan ingest --reindex builds it anew'
            for leg in self._collection.legs
            if (has := self._type(leg.name)) != (wanted := str(self._wanted(leg)[0].index_type))
        ]

    def rebuild(self) -> None:
        """Build the index of every leg as it is configured now. Milvus answers no search in between; what a kill cuts
        off is completed when the collection is opened next."""
        client, timeout = self._connection.client, self._connection.timeout
        self._searchable.clear()
        try:
            with calling(self._connection.place):
                client.release_collection(self._physical, timeout=timeout)
                for leg in self._collection.legs:
                    for name in client.list_indexes(self._physical, field_name=leg.name, timeout=timeout):
                        client.drop_index(self._physical, name, timeout=timeout)
            self.complete()
        finally:
            self._rebuilt += 1
            self._searchable.set()

    def searched(self, search: Callable[[], T], deadline: float) -> T:
        """What the search gives, once there are indexes: one that they are taken away under begins again."""
        while True:
            self._searchable.wait(max(0.0, deadline - time.monotonic()))
            rebuilt = self._rebuilt
            try:
                return search()
            except Retry:
                is_disturbed = rebuilt != self._rebuilt or not self.is_searchable
                if not is_disturbed or time.monotonic() > deadline:
                    raise

    def _wanted(self, leg: Leg) -> Any:
        return index_of(leg, self._choice, in_file=self._connection.file is not None)

    def _make(self, collection: str, field: str, index: Any) -> None:
        client, timeout = self._connection.client, self._connection.timeout
        if not client.list_indexes(collection, field_name=field, timeout=timeout):
            client.create_index(collection, index, timeout=timeout, sync=False)

    def _type(self, field: str) -> str:
        client, timeout = self._connection.client, self._connection.timeout
        with calling(self._connection.place):
            for name in client.list_indexes(self._physical, field_name=field, timeout=timeout):
                return str(client.describe_index(self._physical, name, timeout=timeout)["index_type"])
        return "missing"  # another builds it anew just now
