"""BackendSuite fails a back-end of which one verb does nothing, or does it wrong; the one that is whole it passes."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from bartizan_connector.base.errors import BartizanError, Reject, SpaceMismatch
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Collection, Document, Head, Row, new_physical_name
from bartizan_connector.store.filters import Filter, matches
from bartizan_connector.store.memory import MemoryBackend, MemoryStore, _Kept
from bartizan_connector.testing.backend import BackendSuite
from bartizan_connector.testing.rows import COLLECTION

Break = Callable[[Any], None]
"""Takes a store or a back-end that works, and breaks it."""


class Broken(MemoryBackend):
    """A back-end whose stores are broken as they are opened."""

    def __init__(self, spoil: Break) -> None:
        super().__init__()
        self._spoil = spoil

    def open(self, collection: Collection, *, create: bool = True, name: str = "") -> MemoryStore:
        store = super().open(collection, create=create, name=name)
        self._spoil(store)
        return store


def broken_backend(spoil: Break) -> MemoryBackend:
    backend = MemoryBackend()
    spoil(backend)
    return backend


def first_failure(make: Callable[[], Backend]) -> str | None:
    """The first test of the suite that this back-end fails."""
    suite: Any = type("Suite", (BackendSuite,), {"make": lambda _: make()})()
    for name in sorted(dir(suite)):
        if name.startswith("test_"):
            test = getattr(suite, name)
            for values in _cases(test):
                if not _passes(suite, test, values):
                    return name
    return None


def _cases(test: Any) -> Iterator[dict[str, Any]]:
    """Every combination of what the test is parametrized with."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for choice in product(*(mark.args[1] for mark in marks)):
        values: dict[str, Any] = {}
        for mark, chosen in zip(marks, choice, strict=True):
            names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
            values |= {names[0]: chosen} if len(names) == 1 else dict(zip(names, chosen, strict=True))
        yield values


def _passes(suite: Any, test: Any, values: Mapping[str, Any]) -> bool:
    try:
        backend = suite.make()
        fixtures: dict[str, Any] = {"backend": backend}
        if "store" in inspect.signature(test).parameters:
            fixtures["store"] = backend.open(COLLECTION)
        wanted = inspect.signature(test).parameters
        test(**{name: value for name, value in (fixtures | dict(values)).items() if name in wanted})
        backend.close()
    except (Exception, pytest.fail.Exception):  # noqa: BLE001
        return False
    return True


def doing(verb: str, answer: Callable[..., Any]) -> Break:
    """That verb answers at once and does nothing."""
    return lambda whole: setattr(whole, verb, answer)


def _keeps_left_over_chunks(store: MemoryStore) -> None:
    upsert = store.upsert

    def add(rows: Sequence[Row]) -> None:
        old = [row for document in store.get([row.id for row in rows], vectors=True).values() for row in document.rows]
        upsert([*(replace(each, version=rows[-1].version, hash=rows[-1].hash) for each in old), *rows])

    store.upsert = add  # type: ignore[method-assign]


def _writes_the_good_and_says_nothing(store: MemoryStore) -> None:
    upsert = store.upsert

    def lenient(rows: Sequence[Row]) -> None:
        try:
            upsert(rows)
        except Reject as error:
            upsert([row for row in rows if row.id not in error.ids])

    store.upsert = lenient  # type: ignore[method-assign]


def _forgets_origins(store: MemoryStore) -> None:
    heads = store.heads
    store.heads = lambda ids: {id: replace(head, origin="") for id, head in heads(ids).items()}  # type: ignore


def _drops_rows_when_touched(store: MemoryStore) -> None:
    def touch(heads: Sequence[Head]) -> None:
        store.delete(heads)
        store._kept.heads.update((head.id, head) for head in heads)

    store.touch = touch  # type: ignore[method-assign]


def _scans_rows_not_documents(store: MemoryStore) -> None:
    def scan(filter: Filter | None = None, *, vectors: bool = False) -> Iterator[Document]:
        for document in list(MemoryStore.scan(store, filter, vectors=vectors)):
            passing = [row for row in document.rows if not filter or matches(filter, {"id": row.id, **row.fields})]
            yield replace(document, rows=tuple(passing))

    store.scan = scan  # type: ignore[method-assign]


def _searches_other_spaces(store: MemoryStore) -> None:
    search = store.search

    def lenient(leg: str, vectors: Any, k: int, *rest: Any, **options: Any) -> Any:
        try:
            return search(leg, vectors, k, *rest, **options)
        except SpaceMismatch as error:
            return search(leg, replace(vectors, space_id=error.expected), k, *rest, **options)

    store.search = lenient  # type: ignore[method-assign]


def _holds_on_to_what_was_dropped(store: MemoryStore) -> None:
    kept = store._kept
    type_of = type("Holding", (MemoryStore,), {"_kept": property(lambda _: kept)})
    store.__class__ = type_of


def _follows_the_name(store: MemoryStore) -> None:
    """Instead of the physical name: its writes land in what replaced it."""

    def kept(self: MemoryStore) -> _Kept:
        return self._backend._kept[self._backend._names[self._name]]

    store.__class__ = type("Following", (MemoryStore,), {"_kept": property(kept)})


def _reindexes_to_nothing(store: MemoryStore) -> None:
    def reindex() -> None:
        store._kept.rows.clear()
        store._kept.snapshot = None

    store.reindex = reindex  # type: ignore[method-assign]


def _closes_once(whole: Any) -> None:
    closed: list[bool] = []

    def close() -> None:
        if closed:
            raise RuntimeError("closed already")
        closed.append(True)

    whole.close = close


STORES: dict[str, Break] = {
    "heads that knows nothing": doing("heads", lambda ids: {}),
    "upsert that does nothing": doing("upsert", lambda rows: None),
    "touch that does nothing": doing("touch", lambda heads: None),
    "delete that does nothing": doing("delete", lambda heads: None),
    "search that finds nothing": doing("search", lambda leg, vectors, k, *_, **__: [[] for _ in range(len(vectors))]),
    "get that finds nothing": doing("get", lambda ids, **_: {}),
    "scan that finds nothing": doing("scan", lambda *_, **__: iter(())),
    "count that says 0": doing("count", lambda *_: 0),
    "purge that does nothing": doing("purge", lambda before, since=0: 0),
    "purge that says but does nothing": doing("purge", lambda before, since=0: 4),
    "reindex that loses rows": _reindexes_to_nothing,
    "close that takes one call": _closes_once,
    "upsert that leaves old chunks": _keeps_left_over_chunks,
    "upsert that rejects silently": _writes_the_good_and_says_nothing,
    "heads without origin": _forgets_origins,
    "touch that drops rows": _drops_rows_when_touched,
    "scan that gives parts of documents": _scans_rows_not_documents,
    "search of any space": _searches_other_spaces,
    "what was dropped is written on": _holds_on_to_what_was_dropped,
    "what has the name is written": _follows_the_name,
}


def _creates_for_readers(backend: MemoryBackend) -> None:
    opened = backend.open
    backend.open = lambda collection, *, create=True: opened(collection)  # type: ignore[method-assign]


def _opens_another_each_time(backend: MemoryBackend) -> None:
    opened = backend.open

    def fresh(collection: Collection, *, create: bool = True) -> MemoryStore:
        store = opened(collection, create=create)
        physical = new_physical_name(collection.name)
        backend._kept[physical] = _Kept(collection)
        return MemoryStore(backend, collection.name, physical) if store else store

    backend.open = fresh  # type: ignore[method-assign]


def _takes_any_contract(backend: MemoryBackend) -> None:
    opened = backend.open

    def lenient(collection: Collection, *, create: bool = True) -> MemoryStore:
        try:
            return opened(collection, create=create)
        except BartizanError:
            if collection.name not in backend._names:
                raise
            return MemoryStore(backend, collection.name, backend._names[collection.name])

    backend.open = lenient  # type: ignore[method-assign]


def _keeps_the_names_of_what_it_drops(backend: MemoryBackend) -> None:
    def drop(name: str) -> None:
        del backend._kept[backend._physical(name) or ""]

    backend.drop = drop  # type: ignore[method-assign]


BACKENDS: dict[str, Break] = {
    "open that creates for readers": _creates_for_readers,
    "open that makes another each time": _opens_another_each_time,
    "open that takes any contract": _takes_any_contract,
    "collections that sees none": doing("collections", dict),
    "aliases that sees none": doing("aliases", dict),
    "point that does nothing": doing("point", lambda name, physical_name: None),
    "drop that does nothing": doing("drop", lambda name: None),
    "drop that leaves names": _keeps_the_names_of_what_it_drops,
    "close that takes one call": _closes_once,
}


def test_a_back_end_that_is_whole_passes() -> None:
    assert first_failure(MemoryBackend) is None
    assert first_failure(lambda: Broken(lambda store: None)) is None


@pytest.mark.packaging
@pytest.mark.parametrize("spoil", STORES.values(), ids=STORES)
def test_a_store_with_one_broken_verb_fails(spoil: Break) -> None:
    assert first_failure(lambda: Broken(spoil)) is not None


@pytest.mark.packaging
@pytest.mark.parametrize("spoil", BACKENDS.values(), ids=BACKENDS)
def test_a_back_end_with_one_broken_verb_fails(spoil: Break) -> None:
    assert first_failure(lambda: broken_backend(spoil)) is not None
