"""EmbeddedBackend: collections in one SQLite file, and the indexes that follow it."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from types import MappingProxyType

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.store.checks import check_stored
from bartizan_connector.store.collection import Collection, new_physical_name
from bartizan_connector.store.embedded import sidecar
from bartizan_connector.store.embedded.audit import counts
from bartizan_connector.store.embedded.copying import compact, copy
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.lease import Lease
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.embedded.rows import layout_of
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.store.holder import SILENCE


class EmbeddedBackend:
    """One file, opened. Any number of processes read it, one at a time writes into a collection.

    `index`: `auto` compares every vector while that takes no more than a millisecond and builds a graph beyond, `flat`
    always compares, `hnsw` builds early; `indexes` says it of single legs. `silence`: seconds after which a writer that
    writes nothing may be succeeded.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        index: str = "auto",
        indexes: Mapping[str, str] = MappingProxyType({}),
        silence: float = SILENCE,
    ) -> None:
        self._place = Place(as_path(path, "the file of the store"))
        self._kinds = defaultdict(lambda: index, indexes)
        self._silence = silence
        self._lock = RLock()
        self._stores: list[EmbeddedStore] = []
        self._leases: dict[str, Lease] = {}
        self._uses: Counter[str] = Counter()

    def open(self, collection: Collection, *, create: bool = True, name: str = "") -> EmbeddedStore:
        name = name or collection.name
        layout = self._found(name)
        if layout is None:
            if not create:
                raise WrongUse(f"there is no collection '{name}' in {self._place.path}; ingest documents first")
            self._place.create()
            layout = self._made(collection, name)
        check_stored(layout.collection, collection)
        return self._opened(layout)

    def collections(self) -> Mapping[str, Collection]:
        if not self._place.exists:
            return {}
        with self._place.reading() as connection:
            return {
                physical: Collection.model_validate(json.loads(contract))
                for physical, contract in connection.execute(
                    "SELECT physical, contract FROM collections ORDER BY number"
                )
            }

    def aliases(self) -> Mapping[str, str]:
        if not self._place.exists:
            return {}
        with self._place.reading() as connection:
            return dict(connection.execute("SELECT name, physical FROM aliases ORDER BY name").fetchall())

    def point(self, name: str, physical_name: str) -> None:
        absent = WrongUse(
            f"there is no collection '{physical_name}' in {self._place.path}, so no name can stand for it"
        )
        if not self._place.exists:
            raise absent
        with self._place.writing() as connection:
            if layout_of(connection, physical_name) is None:
                raise absent
            connection.execute("INSERT OR REPLACE INTO aliases (name, physical) VALUES (?, ?)", (name, physical_name))

    def drop(self, name: str) -> None:
        absent = WrongUse(f"there is no collection '{name}' in {self._place.path}")
        if not self._place.exists:
            raise absent
        with self._place.writing() as connection:
            found = connection.execute("SELECT physical FROM aliases WHERE name = ?", (name,)).fetchone()
            layout = layout_of(connection, name) or (layout_of(connection, found[0]) if found else None)
            if layout is None:
                raise absent
            for table in layout.tables:
                connection.execute(f"DROP TABLE {table}")
            connection.execute("DELETE FROM aliases WHERE physical = ?", (layout.physical,))
            connection.execute("DELETE FROM collections WHERE physical = ?", (layout.physical,))
        sidecar.remove(self._place.path, layout.physical)

    def backup(self, target: Path) -> None:
        copy(self._place, target)

    def compact(self) -> int:
        return compact(self._place)

    def close(self) -> None:
        with self._lock:
            stores, self._stores = self._stores, []
        try:
            for store in stores:
                store.close()
        finally:
            self._place.close()

    def _found(self, name: str) -> Layout | None:
        """The collection of that name or physical name."""
        if not self._place.exists:
            return None
        with self._place.reading() as connection:
            found = connection.execute("SELECT physical FROM aliases WHERE name = ?", (name,)).fetchone()
            return layout_of(connection, found[0] if found else name)

    def _made(self, collection: Collection, name: str) -> Layout:
        """The collection that has the name when this is done: made here, or by another who was faster."""
        with self._place.writing() as connection:
            found = connection.execute("SELECT physical FROM aliases WHERE name = ?", (name,)).fetchone()
            layout = layout_of(connection, found[0]) if found else None
            if layout is not None:
                return layout
            physical = new_physical_name(collection.name)
            number = connection.execute(
                "INSERT INTO collections (physical, contract) VALUES (?, ?)", (physical, collection.model_dump_json())
            ).lastrowid
            assert number is not None
            layout = Layout(number, physical, collection)
            for statement in layout.statements():
                connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO aliases (name, physical) VALUES (?, ?)", (name, physical))
            return layout

    def _opened(self, layout: Layout) -> EmbeddedStore:
        physical = layout.physical
        with self._lock:
            if physical not in self._leases:
                self._leases[physical] = Lease(layout.collection.name, self._place.path, silence=self._silence)
            self._uses[physical] += 1
            store = EmbeddedStore(
                self._place,
                layout,
                self._leases[physical],
                kinds=self._kinds,
                closed=lambda: self._let_go(store, physical),
            )
            self._stores.append(store)
            return store

    def _let_go(self, store: EmbeddedStore, physical: str) -> None:
        """Give the lease back with the last of the stores that share it."""
        with self._lock:
            self._stores = [each for each in self._stores if each is not store]
            self._uses[physical] -= 1
            if self._uses[physical]:
                return
            lease = self._leases.pop(physical)
        lease.give_back(self._place, physical, left=_balance)


def _balance(connection: sqlite3.Connection, physical: str) -> str:
    """What stands there when a writer ends, for verification."""
    layout = layout_of(connection, physical)
    return json.dumps(asdict(counts(connection, layout))) if layout else ""
