"""A stage: the folder in which a first fill is encoded before anything of it is visible; what a kill leaves is found.

`rows.bartizan`  an embedded store: what was encoded, with its heads, fenced and replaced as in any store
`state`          what the source was when that was read; else it counts only where this run comes to it too
`made.json`      the physical names that were given out for it, each noted before there is anything of that name
`*.parquet`      what a server imports; written anew each time
"""

import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from uuid import uuid4

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.store.collection import Collection, is_physical_name
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.stream.renewing import Renewing
from bartizan_connector.stream.staged import Staged

_PREFIX = "bartizan-bulk-"


class ToldToStop(Stop):
    """The work was broken off where it was; whoever asked for it says what is left."""


class Stage:
    """One for each collection, contract, address and source, so that nothing is found that belongs to another fill. It
    oversees the loading: what it notes and does not forget may be on the server. `stop`: asked for by an operator."""

    def __init__(
        self, folder: Path, collection: Collection, place: str, identity: str | None, stop: Event | None = None
    ) -> None:
        facts = json.dumps([place, identity, collection.model_dump_json()])
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.folder = Path(os.path.abspath(folder)) / f"{_PREFIX}{collection.name}-{digest}"
        self._collection = collection
        self._list = self.folder / "made.json"
        self._state = self.folder / "state"
        self._stop = stop or Event()
        self._renewing: Renewing | None = None
        self._is_over = False

    @contextmanager
    def opened(self, refuse: Callable[[Sequence[str]], None]) -> Iterator[Staged]:
        """What was encoded so far, with nobody else at it; `refuse` rejects ids that would have no place later. A stage
        that is over, or in which there is nothing to go on with, is taken away while nobody else can have it."""
        with self._alone():
            try:
                self.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise Stop(f"cannot write into {self.folder.parent}: {error.strerror or error}") from error
            for aside in self.folder.parent.glob(f".{glob.escape(self.folder.name)}.*"):  # of who was killed over it
                shutil.rmtree(aside, ignore_errors=True)
            backend = EmbeddedBackend(self.folder / "rows.bartizan", index="flat")
            try:
                store = backend.open(self._collection)
                store.claim()
            except BaseException:
                backend.close()
                with suppress(OSError):  # it holds something
                    self.folder.rmdir()
                raise
        staged = Staged(store, refuse)
        try:
            with self._held(staged):
                yield staged
        finally:
            with self._alone():
                goes = self._is_held_by_us(staged) and (self._is_over or self._is_empty(staged))
                backend.close()
                if goes:
                    self._discard()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else opens or takes away a stage in the folder meanwhile."""
        try:
            held = ExitStack()
            held.enter_context(alone_in(self.folder.parent))
        except OSError as error:
            raise Stop(f"cannot write into {self.folder.parent}: {error.strerror or error}") from error
        with held:
            yield

    @contextmanager
    def _held(self, staged: Staged) -> Iterator[None]:
        """It is heard of us as long as it is open, also while a server builds for hours what was encoded."""
        self._renewing = Renewing(staged.renew, ThreadPoolExecutor(1, "bartizan-hold"))
        self._renewing.begin()
        try:
            yield
        finally:
            self._renewing.end()

    def begin(self, staged: Staged, state: str | None) -> bool:
        """From now on the source is read. Whether what an earlier run encoded counts as it is, since the source was the
        same then; None: nobody knows what it was."""
        if state is not None and self._noted_state() == state:
            return staged.holds_any
        staged.begin_anew()
        write_aside(self._state, state or "")  # only now: else what is not marked yet would count after a kill
        return False

    def _noted_state(self) -> str | None:
        """None where nobody knows any more."""
        try:
            return self._state.read_text("utf-8", "replace")
        except OSError:
            return None

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

    def heed(self) -> None:
        """ToldToStop where that is so, and whatever forbids going on."""
        self.require_ours()
        if self._stop.is_set():
            raise ToldToStop("told to stop")

    @property
    def made(self) -> tuple[str, ...]:
        """Every physical name that may stand for something that an earlier run left. Whoever clears up goes by these
        names, so that a list which cannot be ours is a Stop."""
        try:
            listed = json.loads(self._list.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(listed, list):
            raise self._unreadable(f"{listed!r:.80} is no list")
        for name in listed:
            if not is_physical_name(name, self._collection.name):
                raise self._unreadable(f"{name!r:.80} is no name that is given to collection '{self._collection.name}'")
        return tuple(listed)

    def note(self, physical: str) -> None:
        """Remember, durably, that something of that name is about to be made."""
        self.require_ours()
        write_aside(self._list, json.dumps([*self.made, physical]))

    def forget(self, physical: str) -> None:
        """Of what was noted, that one was taken away. Whoever has the stage by now finds that out by himself."""
        if self.is_ours:
            write_aside(self._list, json.dumps([name for name in self.made if name != physical]))

    def clear(self) -> None:
        """Take the files away that a server imports."""
        for path in self.folder.glob("*.parquet"):
            try:
                path.unlink()
            except OSError as error:
                raise Stop(
                    f"cannot take {path} away: {error.strerror or error}. Remove it and run again: what was encoded is "
                    "kept"
                ) from error

    def finish(self) -> None:
        """Nothing of it is needed any more; it goes when it is closed."""
        self._is_over = True

    def others(self) -> list[Path]:
        """The stages of the same name beside it, which no run of this fill looks at."""
        shape = re.compile(rf"{_PREFIX}{re.escape(self._collection.name)}-[0-9a-f]{{16}}")
        found = (path for path in self.folder.parent.iterdir() if shape.fullmatch(path.name) and path.is_dir())
        return sorted(path for path in found if path != self.folder)

    @staticmethod
    def _is_held_by_us(staged: Staged) -> bool:
        """As of now, not as of when it was last renewed."""
        try:
            staged.renew()
        except BartizanError:
            return False
        return True

    def _is_empty(self, staged: Staged) -> bool:
        """Whether it is not worth keeping, whatever becomes of the run."""
        try:
            return not self.made and not staged.holds_any
        except BartizanError:
            return False

    def _discard(self) -> None:
        """In one step first, so that whoever is killed over it leaves no half of a stage."""
        aside = self.folder.with_name(f".{self.folder.name}.{uuid4().hex[:8]}")
        with suppress(OSError):
            self.folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _unreadable(self, why: str) -> Stop:
        return Stop(
            f"{self._list} is damaged: {why}. It should be a list of the collections on the server that earlier runs "
            f'made and gave no name, such as ["{self._collection.name}__0a1b2c3d"], and nothing was dropped by it. '
            f"Restore it, or drop the collections '{self._collection.name}__…' that have no alias by a client of the "
            "server, then remove the file, and run again: what was encoded is kept"
        )
