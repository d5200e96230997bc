"""What can be asked a query: one form of the question and of its deadline, whoever answers."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Self, TypeVar

from bartizan_connector.search.answer import Answer
from bartizan_connector.search.request import Request
from bartizan_connector.store.filters import Filter

T = TypeVar("T")


class Asking(ABC):
    """Answers queries, in a thread or in an event loop. Safe to share between threads; close it when done."""

    def search(
        self,
        query: str,
        k: int = 10,
        filter: str | Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The k best documents for the query, by all legs or by those named, within `timeout` seconds. A leg that fails
        is left out and named in `degraded`; only when no leg answered is an error raised."""
        return driven(self._answered(self.request(query, k, filter, legs, timeout), blocking=True))

    async def asearch(
        self,
        query: str,
        k: int = 10,
        filter: str | Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """`search` in the caller's event loop, without blocking it; cancelling it drops the answer."""
        return await self._answered(self.request(query, k, filter, legs, timeout), blocking=False)

    @abstractmethod
    def request(
        self,
        query: str,
        k: int,
        filter: str | Filter | None,
        legs: Sequence[str] | None,
        timeout: float | None,
    ) -> Request:
        """The question, once it is found to mean something here; its time begins now."""

    @abstractmethod
    async def _answered(self, request: Request, *, blocking: bool) -> Answer:
        """The one way of a query. With `blocking` it waits in the caller's thread, and never suspends."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def driven(core: Coroutine[None, None, T]) -> T:
    """What a core gives that waits in this thread, and so never suspends."""
    try:
        core.send(None)
    except StopIteration as ended:
        given: T = ended.value
        return given
    raise AssertionError("a blocking search was suspended")
