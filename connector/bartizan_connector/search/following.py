"""A retriever for a collection that gets other towers while it is searched.

It is given every configuration that may fit, and searches with the one whose spaces stand under the name. A collection
that is open stays open, so a query is encoded and searched in one space whatever happens meanwhile. A thread looks at
the name now and then, and at once where a query finds its collection gone. When the name has moved, the next collection
is opened and tried, and takes the place of the one before once a query goes through each leg that answers there. That
one is closed when its last query has ended. So no query fails for it, and none mixes spaces.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Self

from bartizan_connector.base.errors import BartizanError, SpaceMismatch, WrongUse
from bartizan_connector.base.paths import AnyPath
from bartizan_connector.config import Config
from bartizan_connector.search.answer import Answer
from bartizan_connector.search.asking import Asking, driven
from bartizan_connector.search.configured import Contract, lazy_encoder
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.legs import Attempt, Late, left
from bartizan_connector.search.lookout import Lookout
from bartizan_connector.search.request import Request, seconds
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.store.filters import Filter

log = logging.getLogger(__name__)

_PROBE = "a probe"


class _Current:
    """A retriever with the physical name of what it searches, and how many use it."""

    def __init__(self, physical: str, retriever: Retriever) -> None:
        self.physical = physical
        self.retriever = retriever
        self.users = 0
        self.left = False


class FollowingRetriever(Asking):
    """Searches what stands under one name, by whichever configuration fits it. Safe to share between threads; close it
    when done. `every`: how many seconds may pass before it notices that the name has moved; a thread of its own looks,
    so that no query does."""

    def __init__(self, configs: Sequence[Config], *, every: float = 2.0) -> None:
        seconds(every, "every")
        if not configs:
            raise WrongUse("no configuration is given; give the running one and the new one")
        first = configs[0]
        for other in configs[1:]:
            if (other.collection.name, other.backend.uri) != (first.collection.name, first.backend.uri):
                raise WrongUse(
                    f"configurations of one collection are expected, but '{first.collection.name}' at "
                    f"{first.backend.uri} and '{other.collection.name}' at {other.backend.uri} came"
                )
        self._contracts = [(config, Contract.of(config)) for config in configs]
        self._name = first.collection.name
        self._lock = Lock()
        self._closed = False
        self._unclosed = 0
        """Retrievers that were opened and are not closed yet."""
        self._next: _Current | None = None
        """What stands under the name, but did not answer yet."""
        self._behind = ""
        self._backend: Backend = first.backend.open()
        try:
            self._current = self._opened()
            _failing(self._current.retriever)  # there is no other: it is only that the first query need not wait
        except BaseException:
            self._backend.close()
            raise
        self._lookout = Lookout(self._look, every)

    @classmethod
    def open(cls, configs: Sequence[AnyPath | Config], *, every: float = 2.0) -> Self:
        """Over these `bartizan.toml`s, of which at least one must fit what stands there now."""
        return cls([each if isinstance(each, Config) else Config.load(each) for each in configs], every=every)

    @property
    def collection(self) -> Collection:
        """What is searched at the moment."""
        return self._current.retriever.collection

    @property
    def behind(self) -> str:
        """Why what stands under the name is not searched yet; empty where it is, as far as was looked."""
        return self._behind

    def request(
        self,
        query: str,
        k: int,
        filter: str | Filter | None,
        legs: Sequence[str] | None,
        timeout: float | None,
    ) -> Request:
        with self._used() as current:
            return current.retriever.request(query, k, filter, legs, timeout)

    async def _answered(self, request: Request, *, blocking: bool) -> Answer:
        """By what is open; nothing else is asked unless its store fails. Then, once the name has moved, the same
        request goes to what stands there, within what is left of its time."""
        self._lookout.awake()
        while True:
            with self._used() as current:
                failure: SpaceMismatch | None = None
                attempts: Mapping[str, Attempt] = {}
                try:
                    attempts = await current.retriever.attempts(request, blocking=blocking)
                except SpaceMismatch as error:  # another collection has taken the place of the one that was opened
                    failure = error
                if failure is not None or any(map(_failed_in_store, attempts.values())):
                    await self._looked(request, blocking=blocking)
                    if self._current is not current and time.perf_counter() < request.deadline:
                        continue
                if failure is not None:
                    raise failure
                return current.retriever.answer(request, attempts)

    def close(self) -> None:
        """Let go of everything; a query that is under way ends first. Closing twice is fine."""
        with self._lock:
            was, self._closed = self._closed, True
        if not was:
            self._lookout.close()  # what is just being opened is closed as well
            self._forget_next()
            self._leave(self._current)

    async def _looked(self, request: Request, *, blocking: bool) -> None:
        """Wait for a look at what stands under the name, at most to the request's deadline."""
        look = self._lookout.now()
        if blocking:
            wait([look], left(request.deadline))
        else:
            await asyncio.wait([asyncio.wrap_future(look)], timeout=left(request.deadline))

    def _look(self) -> None:
        """Follow the name. What goes wrong with that is said in the log, once: the collection that is open still
        answers."""
        try:
            behind = self._follow()
        except BartizanError as error:
            behind = str(error)
        if behind and behind != self._behind:
            log.warning("'%s' is searched as it was opened: %s", self._name, behind)
        self._behind = behind

    def _follow(self) -> str:
        """Go over to what stands under the name now, if it is another and each of its legs answers that answers before;
        else why not. Called by one at a time."""
        if self._closed:
            return ""
        physical = self._physical()
        if physical == self._current.physical:
            self._forget_next()
            return ""
        if self._next is None or self._next.physical != physical:
            self._forget_next()
            self._next = self._opened()
        fresh = self._next
        failing = _failing(fresh.retriever)
        if failing and not failing.keys() <= _failing(self._current.retriever).keys():
            told = "; ".join(f"no {leg} leg: {why}" for leg, why in failing.items())
            return f"{fresh.physical}, which stands under the name now, does not answer as it should: {told}"
        with self._lock:
            former, self._current, self._next = self._current, fresh, None
        log.info("'%s' stands for %s now", self._name, fresh.physical)
        self._leave(former)
        return ""

    def _forget_next(self) -> None:
        fresh, self._next = self._next, None
        if fresh is not None:
            self._leave(fresh)

    def _physical(self) -> str:
        return self._backend.aliases().get(self._name, self._name)

    def _opened(self) -> _Current:
        """A retriever over what stands under the name."""
        physical = self._physical()
        reasons: list[SpaceMismatch] = []
        for config, contract in self._contracts:
            try:
                store = self._backend.open(contract.stored(self._backend), create=False, name=physical)
            except SpaceMismatch as error:
                reasons.append(error)
                continue
            retriever = _over(config, contract, store)
            with self._lock:
                self._unclosed += 1
            return _Current(physical, retriever)
        raise reasons[0]

    @contextmanager
    def _used(self) -> Iterator[_Current]:
        """The retriever of the moment, which is not closed before the block ends."""
        with self._lock:
            if self._closed:
                raise WrongUse("this retriever is closed; open another")
            current = self._current
            current.users += 1
        try:
            yield current
        finally:
            with self._lock:
                current.users -= 1
                last = current.left and not current.users
            if last:
                self._let_go(current)

    def _leave(self, current: _Current) -> None:
        """Close it when its last query has ended."""
        with self._lock:
            current.left = True
            idle = not current.users
        if idle:
            self._let_go(current)

    def _let_go(self, current: _Current) -> None:
        """Nobody uses it any more; with the last one the back-end goes too."""
        current.retriever.close()
        with self._lock:
            self._unclosed -= 1
            last = self._closed and not self._unclosed
        if last:
            self._backend.close()


def _over(config: Config, contract: Contract, store: Store) -> Retriever:
    """A retriever that closes that store with itself."""
    encoders = {leg: lazy_encoder(config, leg, unread=contract.unread) for leg in config.spaces}
    with ExitStack() as undo:
        undo.callback(store.close)
        retriever = Retriever.over(config, contract.wanted, Lazy.opened(store, store.close), encoders)
        undo.pop_all()
    return retriever


def _failing(retriever: Retriever) -> Mapping[str, str]:
    """The legs through which a query does not go, and why."""
    try:
        attempts = driven(retriever.attempts(retriever.request(_PROBE, 1, None, None, None), blocking=True))
    except BartizanError as error:
        return dict.fromkeys(retriever.legs, str(error))
    return {name: str(each.failure) for name, each in attempts.items() if each.failure}


def _failed_in_store(attempt: Attempt) -> bool:
    """Whether what was searched gave the failure: no tower, and not the deadline."""
    return attempt.failed_in == "search" and not isinstance(attempt.failure, Late)
