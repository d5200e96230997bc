"""A server that imports files, in memory: a first fill by files as the tests run it without one."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bartizan_connector.base.errors import BartizanError, Reject
from bartizan_connector.store.backend import Loading, Overseer
from bartizan_connector.store.collection import Collection, Document, Head, new_physical_name
from bartizan_connector.store.memory import MemoryBackend
from tests.connector.stream.filling import collection_named, filled

COLLECTION = collection_named("docs")
OURS = "\x01"


class Loaded(MemoryBackend):
    """A server that imports files, or fails at a step."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, BaseException] = {}
        self.steps: list[str] = []
        self.dropped: list[str] = []
        self.is_busy = False
        """Whether it imports still, so that nothing can be taken away."""
        self.stop = Event()
        self.told_at: set[str] = set()
        """The steps at which it is told to stop."""

    def aliases(self) -> dict[str, str]:
        """A memory has no collection without a name; this one tells of none."""
        return {name: physical for name, physical in super().aliases().items() if not name.startswith("nameless")}

    def loading(self, collection: Collection) -> Loading:
        return InMemory(self, collection)


class InMemory:
    """How it is done there."""

    def __init__(self, backend: Loaded, collection: Collection) -> None:
        self._backend = backend
        self._collection = collection

    def standing(self) -> str | None:
        return self._backend.aliases().get(self._collection.name)

    def refuse_own(self, ids: Sequence[str]) -> None:
        if own := [id for id in ids if id.startswith(OURS)]:
            raise Reject(own, "the ledger's own")

    def try_out(self, folder: Path, overseer: Overseer) -> None:
        trial = new_physical_name(self._collection.name)
        overseer.note(trial)
        try:
            self._step("try", overseer)
        except BartizanError:
            self._give_up(trial, overseer)
            raise
        self._give_up(trial, overseer)

    def load(
        self,
        folder: Path,
        documents: Iterable[Document],
        deleted: Iterable[Head],
        overseer: Overseer,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> str:
        name = f"nameless{len(self._backend.collections())}"
        store = self._backend.open(self._collection, name=name)
        overseer.note(store.physical_name)
        (folder / "rows-0.parquet").touch()
        store.upsert([row for document in documents for row in document.rows])
        store.delete(list(deleted))
        try:
            self._step("load", overseer)
        except BartizanError:
            self._give_up(store.physical_name, overseer)
            raise
        return store.physical_name

    def drop(self, physical: str, overseer: Overseer) -> bool:
        self._backend.dropped.append(physical)
        self._step("drop", overseer)
        if physical in self._backend.collections():
            self._backend.drop(physical)
        return True

    def give_name(self, physical: str) -> bool:
        self._step("name")
        if self._collection.name in self._backend.aliases():
            return False
        self._backend.point(self._collection.name, physical)
        self._step("named")
        return True

    def _give_up(self, physical: str, overseer: Overseer) -> None:
        if self._backend.is_busy:
            return
        if physical in self._backend.collections():
            self._backend.drop(physical)
        overseer.forget(physical)

    def _step(self, step: str, overseer: Overseer | None = None) -> None:
        self._backend.steps.append(step)
        if error := self._backend.fails.pop(step, None):
            raise error
        if step in self._backend.told_at:
            self._backend.stop.set()
        if overseer is not None:
            overseer.heed()


class Killed(BaseException):
    """Nothing that is done after it was planned."""


def everything(backend: MemoryBackend) -> tuple[Any, ...]:
    store = backend.open(COLLECTION, create=False)
    heads = {head.id: head for page in store.audit().heads() for head in page}
    rows = {
        document.id: [(row.chunk, dict(row.fields), row.vectors["dense"].value.tolist()) for row in document.rows]  # type: ignore[union-attr]
        for document in store.scan(vectors=True)
    }
    return heads, rows


def killed_at(step: str, backend: Loaded, folder: Path, corpus: Path) -> None:
    """A run that dies there."""
    backend.fails[step] = Killed()
    with pytest.raises(Killed):
        filled(backend, COLLECTION, folder, corpus)
