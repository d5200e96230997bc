"""Documents: one collection, opened by a program: put, delete, get, count, scan, search, drop, and each awaited too."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Self, TypeVar

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.documents.given import GivenSource, Session, several
from bartizan_connector.documents.opening import Deferred, Fields, configured, lazy_encoders, read
from bartizan_connector.documents.outcome import Outcome
from bartizan_connector.search.answer import Answer
from bartizan_connector.search.asking import Asking
from bartizan_connector.search.configured import open_words
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.request import Request, checked_filter
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.backend import Backend, Leased, Store
from bartizan_connector.store.collection import Collection, Document, Scalar
from bartizan_connector.store.filters import FIRST_CHUNKS, And, Filter, leaves
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.source import Message
from bartizan_connector.stream.work import fill

T = TypeVar("T")
Fielded = dict[str, Scalar]
"""A document as `put` takes it and `get` gives it: `_id`, `title`, `text`, and the declared fields."""

_PAGE = 256
_OF_A_CHUNK = ("chunk", "text")
"""In these the rows of one document differ."""


class Documents(Asking):
    """The documents of one collection. Safe to share between threads; close it when done.

    Whatever is put or deleted goes the way of every stream: the same fence, the same reasons of refusal, the same
    words. What is given now is newer than what is stored, unless a record has a `_version` of its own. The collection
    is made by the first `put`; towers and store are opened by the first call that needs them. Others may write into
    the collection between two calls."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.collection: Collection = collection_of(config)
        """The contract: the legs, their spaces, the fields."""
        self._session = Session("python")
        self._writing = Lock()
        self._opening = RLock()
        self._backend: Backend | None = None
        self._store: Store | None = None
        self._encoders = lazy_encoders(config)
        self._retriever: Retriever | None = None
        self._closed = False

    @classmethod
    def open(cls, config: str | Path | Config) -> Self:
        """What a `bartizan.toml` describes."""
        return cls(read(config))

    @classmethod
    def at(
        cls,
        uri: str | Path,
        tower: str | Path,
        *,
        query_tower: str | Path | None = None,
        name: str = "documents",
        fields: Fields = (),
        chunks: Mapping[str, Any] | ChunkSettings | None = None,
    ) -> Self:
        """A collection at this address (as `[backend] uri`: a path is a file of the embedded store), filled and
        searched by this tower: an export, or a tower as it was trained. `query_tower` answers queries in its place;
        `fields` are typed and can be filtered by: `{"year": "int"}`, or FieldSpecs where there are defaults. `chunks`:
        how a long document becomes several rows, as `[chunks]`: `{"overlap": 32}`; `{}` for all defaults."""
        return cls(configured(uri, tower, query_tower=query_tower, name=name, fields=fields, chunks=chunks))

    @property
    def store(self) -> Store:
        """What is beneath: the collection behind the seam of storing. It is closed with the documents."""
        return self._opened(create=False)

    @property
    def backend(self) -> Backend:
        """The back-end that the store is of."""
        with self._opening:
            return self._connected()

    def put(self, documents: Iterable[Mapping[str, Any] | str | bytes]) -> Outcome:
        """Store these documents: `{"_id": "a", "title": "…", "text": "…"}` and the declared fields. One with a known id
        replaces it; what cannot be stored is told with its reason, and the rest is written. Any number, as a stream."""
        some = several(documents, "documents", 'a list: [{"_id": "a", "text": "…"}]')
        return self._filled(self._session.puts(some))

    def delete(self, ids: Iterable[str | int]) -> Outcome:
        """Remove these ids, and remember that, so that no older change brings them back."""
        return self._filled(self._session.removals(several(ids, "ids", 'a list: ["a", "b"]')))

    def prune(self, keep: Iterable[str]) -> Outcome:
        """Remove every document whose id is not among these."""
        kept = set(several(keep, "ids", 'a list: ["a", "b"]'))
        store = self._opened(create=False)
        gone = (document.head for document in store.scan() if document.id not in kept)
        return self._filled(self._session.removal_after(number, head) for number, head in enumerate(gone))

    def get(self, ids: Iterable[str]) -> dict[str, Fielded]:
        """The documents of these ids that are stored, in the order of the ids, as `put` takes them."""
        wanted = list(several(ids, "ids", 'a list: ["a", "b"]'))
        found = self._opened(create=False).get(wanted)
        return {id: _fielded(found[id]) for id in wanted if id in found}

    def count(self, filter: str | Filter | None = None) -> int:
        """How many documents pass the filter; one of several chunks counts once."""
        passing, store = checked_filter(filter, self.collection), self._opened(create=False)
        if passing is not None and any(leaf.field in _OF_A_CHUNK for leaf in leaves(passing)):
            return sum(1 for _ in store.scan(passing))
        return store.count(And((FIRST_CHUNKS,) if passing is None else (FIRST_CHUNKS, passing)))

    def scan(self, filter: str | Filter | None = None) -> Iterator[Fielded]:
        """Every document that passes, in any order, with bounded memory."""
        passing = checked_filter(filter, self.collection)
        return map(_fielded, self._opened(create=False).scan(passing))

    def request(
        self,
        query: str,
        k: int,
        filter: str | Filter | None,
        legs: Sequence[str] | None,
        timeout: float | None,
    ) -> Request:
        return self._searching().request(query, k, filter, legs, timeout)

    async def _answered(self, request: Request, *, blocking: bool) -> Answer:
        retriever = self._searching()
        return retriever.answer(request, await retriever.attempts(request, blocking=blocking))

    def drop(self) -> None:
        """Remove the collection and all that belongs to it; the next `put` makes it anew."""
        with self._writing, self._opening:
            backend = self._connected()
            backend.drop(self.collection.name)
            self._let_go()
            words = open_words(self.config)
            if words is not None:
                try:
                    words.clear()
                finally:
                    words.close()

    def close(self) -> None:
        """Let go of towers, store and back-end. Closing twice is fine."""
        with self._opening:
            self._closed = True
            backend, self._backend = self._backend, None
            with ExitStack() as left:
                if backend is not None:
                    left.callback(backend.close)
                for legs in self._encoders.values():
                    for encoder in legs.values():
                        left.callback(encoder.close)
                left.callback(self._let_go)

    async def aput(self, documents: Iterable[Mapping[str, Any] | str | bytes]) -> Outcome:
        """`put`, in a thread."""
        return await asyncio.to_thread(self.put, documents)

    async def adelete(self, ids: Iterable[str | int]) -> Outcome:
        """`delete`, in a thread."""
        return await asyncio.to_thread(self.delete, ids)

    async def aprune(self, keep: Iterable[str]) -> Outcome:
        """`prune`, in a thread."""
        return await asyncio.to_thread(self.prune, keep)

    async def aget(self, ids: Iterable[str]) -> dict[str, Fielded]:
        """`get`, in a thread."""
        return await asyncio.to_thread(self.get, ids)

    async def acount(self, filter: str | Filter | None = None) -> int:
        """`count`, in a thread."""
        return await asyncio.to_thread(self.count, filter)

    async def ascan(self, filter: str | Filter | None = None) -> AsyncIterator[Fielded]:
        """`scan`, page after page in a thread."""
        found = await asyncio.to_thread(self.scan, filter)
        while page := await asyncio.to_thread(lambda: list(islice(found, _PAGE))):
            for document in page:
                yield document

    async def adrop(self) -> None:
        """`drop`, in a thread."""
        await asyncio.to_thread(self.drop)

    async def aclose(self) -> None:
        """`close`, in a thread."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _filled(self, messages: Iterator[Message]) -> Outcome:
        """The changes go through the stream's steps; afterwards others may write."""
        with self._writing, ExitStack() as after:
            store = self._opened(create=True)
            encoders = {leg: Deferred(self.config, leg, encoder) for leg, encoder in self._encoders["document"].items()}
            words = open_words(self.config)
            if words is not None:
                after.callback(words.close)
            if isinstance(store, Leased):
                after.callback(store.let_others_write)
            source = GivenSource(messages)
            report = fill(store, source, encoders, words=words, cutter=self._cutter)
        return Outcome.of(report, source.refused)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter.of(self.config)

    def _searching(self) -> Retriever:
        with self._opening:
            self._refuse_closed()
            if self._retriever is None:
                store: Lazy[Store] = Lazy(lambda _: self._opened(create=False))
                self._retriever = Retriever.over(
                    self.config, self.collection, store, _borrowed(self._encoders["query"])
                )
            return self._retriever

    def _opened(self, *, create: bool) -> Store:
        with self._opening:
            self._refuse_closed()
            if self._store is None:
                self._store = self._connected().open(self.collection, create=create)
            return self._store

    def _connected(self) -> Backend:
        self._refuse_closed()
        if self._backend is None:
            self._backend = self.config.backend.open()
        return self._backend

    def _let_go(self) -> None:
        """Of the store, and of what searches it; what is still being searched ends by itself."""
        retriever, self._retriever = self._retriever, None
        store, self._store = self._store, None
        if retriever is not None:
            retriever.close()
        if store is not None:
            store.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise WrongUse(f"the documents of collection '{self.collection.name}' are closed; open them again")


def _fielded(document: Document) -> Fielded:
    return {"_id": document.id, **document.fields}


def _borrowed(encoders: Mapping[str, Lazy[Any]]) -> dict[str, Lazy[Any]]:
    """The same encoders for somebody whose closing is not theirs."""

    def open(encoder: Lazy[Any]) -> Callable[[ExitStack], Any]:
        return lambda stack: stack.enter_context(encoder.use())

    return {leg: Lazy(open(encoder)) for leg, encoder in encoders.items()}
