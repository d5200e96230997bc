"""MemoryBackend: rows in a dictionary, searched exactly; the oracle that every other back-end is compared with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store import filters
from bartizan_connector.store.audit import PAGE, Balance, Standing, Stray
from bartizan_connector.store.checks import check_stored, checked_heads, checked_query, checked_rows, replaced
from bartizan_connector.store.collection import Collection, Document, Head, Hit, Row, new_physical_name
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.snapshot import Snapshot

_PLACE = "this memory"


class MemoryBackend:
    """Collections that live as long as the object does. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._kept: dict[str, _Kept] = {}
        self._names: dict[str, str] = {}

    def open(self, collection: Collection, *, create: bool = True, name: str = "") -> "MemoryStore":
        name = name or collection.name
        with self._lock:
            physical = self._physical(name)
            if physical is not None:
                check_stored(self._kept[physical].collection, collection)
            elif create:
                physical = self._names[name] = new_physical_name(collection.name)
                self._kept[physical] = _Kept(collection)
            else:
                raise WrongUse(f"there is no collection '{name}' in {_PLACE}; ingest documents first")
            return MemoryStore(self, collection.name, physical)

    def collections(self) -> Mapping[str, Collection]:
        with self._lock:
            return {physical: kept.collection for physical, kept in self._kept.items()}

    def aliases(self) -> Mapping[str, str]:
        with self._lock:
            return dict(self._names)

    def point(self, name: str, physical_name: str) -> None:
        with self._lock:
            if physical_name not in self._kept:
                raise WrongUse(f"there is no collection '{physical_name}' in {_PLACE}, so no name can stand for it")
            self._names[name] = physical_name

    def drop(self, name: str) -> None:
        with self._lock:
            physical = self._physical(name)
            if physical is None:
                raise WrongUse(f"there is no collection '{name}' in {_PLACE}")
            del self._kept[physical]
            self._names = {alias: target for alias, target in self._names.items() if target != physical}

    def close(self) -> None:
        """Nothing to let go of: the collections stay until the object goes."""

    def _physical(self, name: str) -> str | None:
        return name if name in self._kept else self._names.get(name)


class MemoryStore:
    """One collection of a MemoryBackend."""

    def __init__(self, backend: MemoryBackend, name: str, physical_name: str) -> None:
        self._backend = backend
        self._lock = backend._lock
        self._name = name
        self.physical_name = physical_name
        self.collection = backend._kept[physical_name].collection
        self.remarks: Sequence[str] = ()

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        with self._lock:
            known = self._kept.heads
            return {id: known[id] for id in ids if id in known}

    def claim(self, group: str = "") -> None:
        """Nobody else sees this memory; writes take turns."""
        with self._lock:
            _ = self._kept

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._lock:
            kept = self._kept
            for document in checked_rows(self.collection, rows):
                kept.rows[document.id] = document.rows
                kept.heads[document.id] = document.head
            kept.snapshot = None

    def touch(self, heads: Sequence[Head]) -> None:
        with self._lock:
            self._kept.heads.update((head.id, head) for head in checked_heads(heads))

    def delete(self, heads: Sequence[Head]) -> None:
        with self._lock:
            kept = self._kept
            for head in checked_heads(heads):
                kept.rows.pop(head.id, None)
                kept.heads[head.id] = replace(head, deleted=True)
            kept.snapshot = None

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        with self._lock:
            kept = self._kept
            chosen = checked_query(self.collection, leg, vectors, k, filter)
            if kept.snapshot is None:
                kept.snapshot = Snapshot([row for rows in kept.rows.values() for row in rows])
            snapshot = kept.snapshot
        return snapshot.search(chosen, vectors, k, filter)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> Mapping[str, Document]:
        with self._lock:
            kept = self._kept
            return {id: kept.document(id, vectors) for id in ids if id in kept.rows}

    def scan(self, filter: Filter | None = None, *, vectors: bool = False) -> Iterator[Document]:
        self._checked(filter)
        with self._lock:
            kept = self._kept
            ids = [id for id, rows in kept.rows.items() if any(_passes(filter, row) for row in rows)]
        for id in ids:
            with self._lock:
                kept = self._kept
                document = kept.document(id, vectors) if id in kept.rows else None
            if document is not None:
                yield document

    def count(self, filter: Filter | None = None) -> int:
        self._checked(filter)
        with self._lock:
            return sum(_passes(filter, row) for rows in self._kept.rows.values() for row in rows)

    def purge(self, before: int, since: int = 0) -> int:
        with self._lock:
            heads = self._kept.heads
            old = [
                id
                for id, head in heads.items()
                if head.deleted and since <= head.version < before and id not in self._kept.rows
            ]
            for id in old:
                del heads[id]
            return len(old)

    def reindex(self) -> None:
        """Nothing is indexed here."""

    def audit(self) -> "MemoryAudit":
        """Everything that stands there, for verification."""
        return MemoryAudit(self)

    def close(self) -> None:
        """Nothing to let go of: the collection stays until the back-end goes."""

    @property
    def _kept(self) -> "_Kept":
        """What the back-end keeps under our physical name; called with the lock held."""
        backend = self._backend
        kept = backend._kept.get(self.physical_name)
        if kept is None:
            now = backend._kept.get(backend._physical(self._name) or "")
            raise replaced(self.collection, now.collection if now else None, _PLACE)
        return kept

    def _checked(self, filter: Filter | None) -> None:
        if filter is not None:
            filters.check(filter, self.collection)


@dataclass(slots=True)
class _Kept:
    """One collection."""

    collection: Collection
    rows: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    """The rows as they are searched; None after a change."""

    def document(self, id: str, vectors: bool) -> Document:
        head = self.heads[id]
        rows = tuple(
            replace(
                row,
                vectors=row.vectors if vectors else {},
                version=head.version,
                hash=head.hash,
                origin=head.origin,
                offset=head.offset,
            )
            for row in self.rows[id]
        )
        return Document(id=id, rows=rows, head=head)


class MemoryAudit:
    """Heads and rows as they lie in the two dictionaries."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def standings(self) -> Iterator[list[Standing]]:
        with self._store._lock:
            ids = sorted(self._store._kept.heads)
        for start in range(0, len(ids), PAGE):
            yield self.again(ids[start : start + PAGE])

    def again(self, ids: Sequence[str]) -> list[Standing]:
        with self._store._lock:
            kept = self._store._kept
            return [
                Standing(id=id, head=head, rows=() if head.deleted else kept.rows.get(id, ()))
                for id in ids
                if (head := kept.heads.get(id))
            ]

    def heads(self) -> Iterator[list[Head]]:
        with self._store._lock:
            heads = sorted(self._store._kept.heads.values(), key=lambda head: head.id)
        yield from (heads[start : start + PAGE] for start in range(0, len(heads), PAGE))

    def strays(self) -> Iterator[list[Stray]]:
        with self._store._lock:
            kept = self._store._kept
            owned = {id for id, head in kept.heads.items() if not head.deleted}
            strays = [
                Stray(id=id, chunk=row.chunk) for id, rows in kept.rows.items() if id not in owned for row in rows
            ]
        if strays:
            yield strays

    def remove(self, strays: Sequence[Stray]) -> None:
        with self._store._lock:
            kept = self._store._kept
            for stray in strays:
                kept.rows.pop(stray.id, None)
            kept.snapshot = None

    def balance(self) -> Balance | None:
        """Nothing outlives the process, so nothing is written down."""
        return None

    def now(self) -> Balance:
        with self._store._lock:
            kept = self._store._kept
            deleted = sum(head.deleted for head in kept.heads.values())
            return Balance(rows=sum(map(len, kept.rows.values())), live=len(kept.heads) - deleted, deleted=deleted)


def _passes(filter: Filter | None, row: Row) -> bool:
    return filter is None or filters.matches(filter, {"id": row.id, "chunk": row.chunk, **row.fields})
