"""A stage: the folder in which a first fill is encoded before anything of it is visible; what a kill leaves is found.

`rows.bartizan`  an embedded store: what was encoded, with its heads, fenced and replaced as in any store
`made.json`      the physical names that were given out for it, each noted before there is anything of that name
`*.parquet`      what a server imports; written anew each time
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.stream.renewing import Renewing

_PREFIX = "bartizan-bulk-"


class Stage:
    """One for each collection, contract, address and source, so that nothing is found that belongs to another fill."""

    def __init__(self, folder: Path, collection: Collection, place: str, identity: str | None) -> None:
        facts = json.dumps([place, identity, collection.model_dump_json()])
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.folder = Path(os.path.abspath(folder)) / f"{_PREFIX}{collection.name}-{digest}"
        self._collection = collection
        self._is_known = identity is not None
        """Whether what was encoded for this source before can be of any use: of a stream nobody knows what it was."""
        self._list = self.folder / "made.json"
        self._renewing: Renewing | None = None
        self.is_useless = False
        """Whether it is not worth keeping, whatever becomes of the run."""

    @contextmanager
    def opened(self, refuse: Callable[[Sequence[str]], None]) -> Iterator[Store]:
        """What was encoded so far, with nobody else at it; `refuse` rejects ids that would have no place later."""
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise Stop(f"cannot write into {self.folder.parent}: {error.strerror or error}") from error
        with self._ending(), closing(EmbeddedBackend(self.folder / "rows.bartizan", index="flat")) as backend:
            store = backend.open(self._collection)
            store.claim()
            if not self._is_known and next(store.audit().heads(), None):
                store.close()
                backend.drop(self._collection.name)
                store = backend.open(self._collection)
                store.claim()
            staged = Staged(store, refuse)
            with self._held(staged):
                yield cast(Store, staged)

    @contextmanager
    def _held(self, staged: "Staged") -> Iterator[None]:
        """It is heard of us as long as it is open, also while a server builds for hours what was encoded."""
        self._renewing = Renewing(staged.renew, ThreadPoolExecutor(1, "bartizan-hold"))
        self._renewing.begin()
        try:
            yield
        finally:
            self._renewing.end()

    def require_ours(self) -> None:
        """A Stop where another has it by now: then nothing of it is touched any more."""
        if self._renewing is not None:
            self._renewing.require()

    @property
    def is_ours(self) -> bool:
        try:
            self.require_ours()
        except BartizanError:
            return False
        return True

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.is_useless:
                self.discard()

    @property
    def made(self) -> tuple[str, ...]:
        """Every physical name that may stand for something that an earlier run left."""
        try:
            return tuple(json.loads(self._list.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return ()

    def note(self, physical: str) -> None:
        """Remember, durably, that something of that name is about to be made."""
        write_aside(self._list, json.dumps([*self.made, physical]))

    def forget(self, physical: str) -> None:
        """Of what was noted, that one was taken away."""
        write_aside(self._list, json.dumps([name for name in self.made if name != physical]))

    def clear(self) -> None:
        """Take the files away that a server imports."""
        for path in self.folder.glob("*.parquet"):
            path.unlink()

    def discard(self) -> None:
        """Nothing of it is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Staged:
    """The store of a stage, which rejects what the store that it is for would reject."""

    def __init__(self, store: EmbeddedStore, refuse: Callable[[Sequence[str]], None]) -> None:
        self.collection = store.collection
        self.audit = store.audit
        self._store = store
        self._refuse = refuse

    @property
    def writes_whole(self) -> bool:
        return self._store.writes_whole

    def renew(self) -> float:
        return self._store.renew()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, rows: Sequence[Row]) -> None:
        self._refuse([row.id for row in rows])
        self._store.upsert(rows)

    def delete(self, heads: Sequence[Head]) -> None:
        self._refuse([head.id for head in heads])
        self._store.delete(heads)
