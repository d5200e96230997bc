"""MilvusBackend: collections in a Milvus Lite file or on a Milvus server."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import RLock
from types import MappingProxyType

from bartizan_connector.base.errors import BartizanError, WrongUse
from bartizan_connector.store.collection import Collection
from bartizan_connector.store.holder import SILENCE
from bartizan_connector.store.kinds import GOAL
from bartizan_connector.store.milvus.bulk import MilvusLoading
from bartizan_connector.store.milvus.choices import BUILD_TIMEOUT, Choices
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.names import Found, Names
from bartizan_connector.store.milvus.preparation import Preparation
from bartizan_connector.store.milvus.reading import Reader
from bartizan_connector.store.milvus.store import Consistency, MilvusStore
from bartizan_connector.store.milvus.writing import Writer
from bartizan_connector.store.profiles import Profile, profile_of


class MilvusBackend:
    """One address; it is connected to when it is first needed. Safe to share between threads.

    `index`: the profile of every dense leg that `indexes` does not name. `build_timeout`: seconds without any more rows
    covered, after which an index is replaced by one that every server builds; `least_recall`: below it, too.
    `silence`: seconds after which a writer that writes nothing may be succeeded."""

    def __init__(
        self,
        uri: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        consistency: Consistency = "Bounded",
        index: str | Profile = "auto",
        indexes: Mapping[str, Profile] = MappingProxyType({}),
        build_timeout: float = BUILD_TIMEOUT,
        least_recall: float = GOAL,
        silence: float = SILENCE,
    ) -> None:
        if not isinstance(uri, str) or not uri:
            raise WrongUse(f"uri must be an address or a path, as a text, but {uri!r:.80} ({type(uri).__name__}) came")
        self._connection = Connection(uri, token, timeout)
        self._consistency = consistency
        self._choices = Choices(
            default=profile_of(index), legs=dict(indexes), build_timeout=build_timeout, goal=least_recall
        )
        self._silence = silence
        self._lock = RLock()
        self._calls = 0
        self._stores: list[MilvusStore] = []
        self._writers: dict[Found, Writer] = {}
        """One for all stores of a collection, so that their writes take turns, and searches wait for a reindex."""
        self._users: Counter[Found] = Counter()
        """How many stores of a collection are open, or being opened."""

    def open(self, collection: Collection, *, create: bool = True, name: str = "") -> MilvusStore:
        with self._connected(create=create):
            prepared = Preparation(self._connection, self._choices).open(collection, name, create=create)
            with self._lock:
                writer = self._writers.setdefault(
                    prepared.found, Writer(self._connection, prepared, collection.name, self._silence)
                )
                self._users[prepared.found] += 1
            try:
                store = MilvusStore(
                    self._connection, collection.name, writer.prepared, writer, self._consistency, self._forget
                )
            except BaseException:
                self._leave(prepared.found, Reader(self._connection, prepared))
                raise
            with self._lock:
                self._stores.append(store)
            return store

    def collections(self) -> Mapping[str, Collection]:
        if self._connection.is_absent:
            return {}
        with self._connected() as names:
            return names.collections()

    def aliases(self) -> Mapping[str, str]:
        if self._connection.is_absent:
            return {}
        with self._connected() as names:
            return names.aliases()

    def point(self, name: str, physical_name: str) -> None:
        with self._connected() as names:
            names.point(name, physical_name)

    def drop(self, name: str) -> None:
        with self._connected() as names:
            names.drop(name)

    def loading(self, collection: Collection) -> MilvusLoading:
        loading = MilvusLoading(self._connection, self._choices, collection, self._connected)
        loading.require_possible()
        return loading

    def close(self) -> None:
        with self._lock, ExitStack() as left:
            left.callback(self._connection.close)
            for store in self._stores:
                left.callback(store.close)

    @contextmanager
    def _connected(self, *, create: bool = False) -> Iterator[Names]:
        """After a failure, where nothing is open, nobody has this in hand to close it."""
        with self._lock:
            self._connection.open(create=create)
            self._calls += 1
        try:
            yield Names(self._connection)
        except BartizanError:
            with self._lock:
                if self._calls == 1 and not self._stores:
                    self._connection.close()
            raise
        finally:
            with self._lock:
                self._calls -= 1

    def _forget(self, store: MilvusStore) -> None:
        with self._lock:
            self._stores = [each for each in self._stores if each is not store]
        self._leave(store.found, store.reader)

    def _leave(self, found: Found, reader: Reader) -> None:
        """With the last one who uses the collection here, its writer goes."""
        with self._lock:
            self._users[found] -= 1
            if self._users[found]:
                return
            del self._users[found]
            writer = self._writers.pop(found)
        writer.release(reader.count_all)
