"""The first fill of a collection from files, which a Milvus server imports into a collection without a name.

An import asks for no alias, so nothing stops a writer that was succeeded; and it inserts, so a key that is there would
stand twice. Neither can matter in a collection that nobody else knows of, that is new, and that is thrown away whole if
anything goes wrong. Its index is ordered when all rows are there, it is loaded when that is built, and what can be read
then is held against what was written: how many rows, documents and deletions, and some documents whole.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pymilvus.client.types import LoadState

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.store.audit import Balance
from bartizan_connector.store.backend import Overseer
from bartizan_connector.store.collection import Collection, Document, Head, Row, new_physical_name
from bartizan_connector.store.milvus.building import OnRows, waited
from bartizan_connector.store.milvus.choices import Choices
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.store.milvus.ledger import Entry, Ledger, ledger_name
from bartizan_connector.store.milvus.names import Found, Names
from bartizan_connector.store.milvus.parquet import Files, require_engine
from bartizan_connector.store.milvus.preparation import Preparation, Prepared
from bartizan_connector.store.milvus.reading import Reader
from bartizan_connector.store.milvus.schema import entity_of, schema_of
from bartizan_connector.store.milvus.writing import refuse_ours

log = logging.getLogger(__name__)
T = TypeVar("T")

_AT_ONCE = 500
_LOOKED_AT = 32
"""Documents that are read back and compared whole."""
_SEEN_SECONDS = 60.0
"""By then a server shows what it has imported; some seconds are usual."""
_SETTLE_SECONDS = 180.0
"""How long to wait for what a server was told to import by a run that was killed."""
_GIVE_UP_SECONDS = 10.0
_MOST_TASKS = 1000
_DONE, _TAKEN, _FAILED = ("Completed",), ("Completed", "Persisted"), "Failed"
"""Visible soon, read from its file, and a beginning of what it is called that never will be either."""
_PAUSES = (0.05, 0.1, 0.2, 0.5)
_WAY_OUT = (
    "It imports files that it sees by the very path that they have here: a server with local storage, on this machine "
    "or with the folder mounted at the same place. Give such a folder, or leave --bulk out: a plain ingest needs none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What stands in the files, and what must be readable once they are imported."""

    rows: Files
    ledger: Files
    balance: Balance
    sample: tuple[Document, ...]


class MilvusLoading:
    """The first fill of one collection, into one that has no name yet."""

    def __init__(
        self,
        connection: Connection,
        choices: Choices,
        collection: Collection,
        connected: Callable[[], AbstractContextManager[Names]],
    ) -> None:
        self._connection = connection
        self._choices = choices
        self._collection = collection
        self._connected = connected
        self._preparation = Preparation(connection, choices)

    def require_possible(self) -> None:
        """Refuse what can never be filled so."""
        if self._connection.file is not None:
            raise WrongUse(
                f"--bulk is for a Milvus server, which imports files; {self._connection.place} is a Milvus Lite "
                "folder: leave --bulk out"
            )
        sparse = [leg.name for leg in self._collection.legs if leg.kind == "sparse"]
        if sparse:
            raise WrongUse(f"--bulk loads dense vectors only, and {sparse[0]} is a sparse leg: leave --bulk out")
        require_engine()
        with self._connected():
            self._preparation.require_possible(self._collection)

    def standing(self) -> str | None:
        """The physical name of what has the collection's name already."""
        with self._connected() as names:
            found = names.find(self._collection.name)
            return found.physical if found else None

    @staticmethod
    def refuse_own(ids: Sequence[str]) -> None:
        refuse_ours(ids)

    def try_out(self, folder: Path, overseer: Overseer) -> None:
        """See that the server imports a file out of that folder, before anything is encoded for it."""
        with self._connected():
            physical = self._begin(overseer)
            try:
                ledger = Ledger(self._connection, physical)
                files = Files(folder, "trial", ledger.schema())
                files.add([ledger.entity(Entry.unknown("trial"))])
                files.close()
                self._import({ledger.name: files.paths}, overseer)
            finally:
                self._give_up(physical, overseer)

    def load(
        self,
        folder: Path,
        documents: Iterable[Document],
        deleted: Iterable[Head],
        overseer: Overseer,
        on_rows: OnRows | None = None,
    ) -> str:
        with self._connected():
            written = self._written(folder, documents, deleted, overseer)
            physical = self._begin(overseer)
            try:
                ledger = Ledger(self._connection, physical)
                self._import({physical: written.rows.paths, ledger.name: written.ledger.paths}, overseer)
                indexes = self._indexed(physical, written.rows.rows, _heeded(on_rows, overseer))
                self._loaded(physical, indexes.patience, overseer)
                indexes.complete(self._connection.timeout)
                found = Found(physical=physical, number=0, contract=self._collection)
                self._verify(written, Prepared(found, ledger, indexes), overseer)
            except BaseException:
                self._give_up(physical, overseer)
                raise
            return physical

    def drop(self, physical: str, overseer: Overseer) -> bool:
        with self._connected() as names:
            if names.find(physical) is None:  # half of it may be there
                if not self._is_taken_away(physical):
                    raise Retry(
                        f"the Milvus server at {self._connection.place} did not let {physical}, which an earlier run "
                        "has left, be taken away; run again",
                        after=30.0,
                    )
                return True
            if not self._is_settled(physical, _SETTLE_SECONDS, overseer.heed):
                raise Retry(
                    f"the Milvus server at {self._connection.place} still imports into {physical}, which an earlier "
                    "run has left; run again when that has ended",
                    after=30.0,
                )
            if names.aliases_of(physical):  # given while we waited: it is somebody's collection
                return False
            names.drop(physical)
            return True

    def give_name(self, physical: str) -> bool:
        with self._connected():
            return self._preparation.give_name(self._collection.name, physical)

    def _begin(self, overseer: Overseer) -> str:
        """A new collection without a name, an index, or anything in it."""
        physical = new_physical_name(self._collection.name)
        overseer.note(physical)
        try:
            self._preparation.create(self._collection, physical)
        except BaseException:
            with suppress(BartizanError):
                if self._is_taken_away(physical):
                    overseer.forget(physical)
            raise
        return physical

    def _written(
        self, folder: Path, documents: Iterable[Document], deleted: Iterable[Head], overseer: Overseer
    ) -> _Written:
        ledger = Ledger(self._connection, self._collection.name)  # no name of it is used: all ledgers have one schema
        heads, files = Files(folder, "heads", ledger.schema()), Files(folder, "rows", schema_of(self._collection))
        sample: list[Document] = []
        live = gone = 0
        dice = random.Random(0)
        try:
            for some in _together(documents, lambda document: len(document.rows)):
                overseer.heed()
                files.add([entity_of(row, self._collection) for document in some for row in document.rows])
                heads.add([ledger.entity(Entry(each.head, each.rows[-1].chunk + 1)) for each in some])
                for document in some:
                    live += 1
                    if len(sample) < _LOOKED_AT:
                        sample.append(document)
                    elif (at := dice.randrange(live)) < _LOOKED_AT:
                        sample[at] = document
            for page in _together(deleted):
                overseer.heed()
                heads.add([ledger.entity(Entry(replace(head, deleted=True))) for head in page])
                gone += len(page)
        finally:
            files.close()
            heads.close()
        balance = Balance(rows=files.rows, live=live, deleted=gone)
        return _Written(rows=files, ledger=heads, balance=balance, sample=tuple(sample))

    def _import(self, files: Mapping[str, Sequence[Path]], overseer: Overseer) -> None:
        """All of them, one after the other: a server takes one at a time, and looks for what it turned away a minute
        later."""
        tasks: dict[int, Path] = {}
        for name, paths in files.items():
            for path in paths:
                task = self._ordered(name, path)
                tasks[task] = path
                self._await(task, path, _TAKEN, overseer)
        for task, path in tasks.items():
            self._await(task, path, _DONE, overseer)

    def _await(self, task: int, path: Path, states: Sequence[str], overseer: Overseer) -> None:
        """Until the import has come so far."""
        before, since, turn = None, time.monotonic(), 0
        while True:
            overseer.heed()
            with calling(self._connection.place):
                told = self._calls.get_bulk_insert_state(task, timeout=self._connection.timeout)
            if told.state_name.startswith(_FAILED):
                raise self._unable(path, told.failed_reason)
            if told.state_name in states:
                return
            now = told.state_name, told.row_count, told.progress
            if now != before:
                before, since, turn = now, time.monotonic(), 0
            elif time.monotonic() - since > self._choices.build_timeout:
                raise self._unable(path, f"nothing moved for {self._choices.build_timeout:g} s")
            time.sleep(_PAUSES[min(turn, len(_PAUSES) - 1)])
            turn += 1

    def _ordered(self, name: str, path: Path) -> int:
        try:
            with calling(self._connection.place):
                return int(self._calls.do_bulk_insert(name, "", [str(path)], timeout=self._connection.timeout))
        except Stop as error:
            if type(error) is not Stop:
                raise
            raise self._unable(path, str(error)) from error

    def _is_settled(self, physical: str, seconds: float, heed: Callable[[], None] = lambda: None) -> bool:
        """Whether the server has ended all that it was told to import into it, after so many seconds at the latest. One
        that is dropped under an import keeps 2.3 from any other for minutes."""
        deadline = time.monotonic() + seconds
        while True:
            with calling(self._connection.place):
                tasks = [
                    task
                    for name in (physical, ledger_name(physical))
                    for task in self._calls.list_bulk_insert_tasks(_MOST_TASKS, name, timeout=self._connection.timeout)
                ]
            if all(task.state_name in _DONE or task.state_name.startswith(_FAILED) for task in tasks):
                return True
            if time.monotonic() > deadline:
                return False
            heed()
            time.sleep(_PAUSES[-1])

    def _give_up(self, physical: str, overseer: Overseer) -> None:
        """Take it away, unless the server is at it still; then the overseer has to."""
        with suppress(BartizanError):
            if self._is_settled(physical, _GIVE_UP_SECONDS) and self._is_taken_away(physical):
                overseer.forget(physical)

    def _is_taken_away(self, physical: str) -> bool:
        """Take rows and ledger away, and see whether both are gone."""
        self._preparation.take_away(physical)
        names = Names(self._connection)
        return names.describe(physical) is None and names.describe(ledger_name(physical)) is None

    @property
    def _calls(self) -> Any:
        """pymilvus' own client has no import; the functions that have are deprecated with the rest of their module."""
        return self._connection.client._get_connection()

    def _unable(self, path: Path, why: str) -> Stop:
        return Stop(
            f"the Milvus server at {self._connection.place} could not import {path}: {why or 'no reason given'}. "
            f"Nothing is visible, and what was encoded is kept. {_WAY_OUT}"
        )

    def _indexed(self, physical: str, rows: int, on_rows: OnRows) -> Indexes:
        """Ordered over all rows, and waited for; only then it may be loaded: what is loaded sooner is compared row by
        row."""
        indexes = Indexes(self._connection, physical, self._collection, self._choices)
        for leg in self._collection.legs:
            indexes.make(leg, indexes.wanted(leg), rows)
        for leg in self._collection.legs if rows else ():
            if why := waited(indexes, leg, on_rows):
                log.warning("leg %s of collection '%s': %s", leg.name, self._collection.name, why)
        return indexes

    def _loaded(self, physical: str, seconds: float, overseer: Overseer) -> None:
        """Ordered, and looked at until the server has done it: a call that waits could not be ended."""
        client, timeout = self._connection.client, self._connection.timeout
        deadline = time.monotonic() + seconds
        with calling(self._connection.place):
            client.load_collection(physical, timeout=timeout, _async=True)
        while True:
            overseer.heed()
            with calling(self._connection.place):
                state = client.get_load_state(physical, timeout=timeout)["state"]
            if state == LoadState.Loaded:
                return
            if time.monotonic() > deadline:
                raise Retry(
                    f"the Milvus server at {self._connection.place} did not load {physical} ({state.name}). Nothing is "
                    "visible, and what was encoded is kept: run again, once the server has room to load it"
                )
            time.sleep(_PAUSES[-1])

    def _verify(self, written: _Written, prepared: Prepared, overseer: Overseer) -> None:
        """What can be read is what was written, or nobody ever sees it."""
        reader, deadline = Reader(self._connection, prepared), time.monotonic() + _SEEN_SECONDS
        while (now := prepared.ledger.balance(reader.count_all())) != written.balance:
            if time.monotonic() > deadline:
                raise self._wrong(f"{now} can be read of {written.balance}")
            overseer.heed()
            time.sleep(_PAUSES[-1])
        there = reader.get([document.id for document in written.sample], True)
        for document in written.sample:
            if not _same(document, there.get(document.id)):
                raise self._wrong(f"{document.id!r} is not as it was written")

    def _wrong(self, what: str) -> Stop:
        return Stop(
            f"the Milvus server at {self._connection.place} did not import what it was given: {what}. Nothing is "
            "visible, and what was encoded is kept; run again, or leave --bulk out"
        )


def _heeded(on_rows: OnRows | None, overseer: Overseer) -> OnRows:
    """The same, and the overseer is heeded each time."""

    def told(covered: int, rows: int) -> None:
        overseer.heed()
        if on_rows is not None:
            on_rows(covered, rows)

    return told


def _same(written: Document, read: Document | None) -> bool:
    return (
        read is not None
        and (written.head, len(written.rows)) == (read.head, len(read.rows))
        and all(_is_row(*rows) for rows in zip(written.rows, read.rows, strict=True))
    )


def _is_row(written: Row, read: Row) -> bool:
    same = (written.chunk, dict(written.fields)) == (read.chunk, dict(read.fields))
    return same and all(
        np.array_equal(np.asarray(vector.value), np.asarray(read.vectors[leg].value))
        for leg, vector in written.vectors.items()
    )


def _together(values: Iterable[T], rows: Callable[[T], int] = lambda _: 1) -> Iterator[list[T]]:
    """The values by as many as have some hundred rows together."""
    some: list[T] = []
    count = 0
    for value in values:
        some.append(value)
        count += rows(value)
        if count >= _AT_ONCE:
            yield some
            some, count = [], 0
    if some:
        yield some
