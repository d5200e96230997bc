"""What is opened when it is first needed, by whoever needs it, and closed when nobody uses it any more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Generic, Self, TypeVar

from bartizan_connector.base.errors import WrongUse

T = TypeVar("T")


class Lazy(Generic[T]):
    """Opens once; after a failure the next use opens again. Closing never waits: what is in use, or is being opened, is
    closed by its last user. Safe to share between threads."""

    def __init__(self, open: Callable[[ExitStack], T]) -> None:
        """`open` puts on the stack what is to be done when this is closed; if it raises, that is done at once."""
        self._open = open
        self._opening = Lock()
        self._counting = Lock()
        self._closing = ExitStack()
        self._value: T | None = None
        self._users = 0
        self._closed = False

    @classmethod
    def opened(cls, value: T, close: Callable[[], object] | None = None) -> Self:
        """What is open already."""
        lazy = cls(lambda _: value)
        lazy._value = value
        if close is not None:
            lazy._closing.callback(close)
        return lazy

    @property
    def value(self) -> T | None:
        """What is open; None before it is opened."""
        return self._value

    @contextmanager
    def use(self) -> Iterator[T]:
        """Opened, and not closed before the block ends."""
        with self._counting:
            if self._closed:
                raise WrongUse("this is closed; open another")
            self._users += 1
        try:
            value = self._value
            yield self._once() if value is None else value
        finally:
            with self._counting:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                self._close()

    def close(self) -> None:
        """Open no more. Closing twice is fine."""
        with self._counting:
            idle = not self._closed and not self._users
            self._closed = True
        if idle:
            self._close()

    def _once(self) -> T:
        with self._opening:
            if self._value is None:
                with ExitStack() as stack:
                    self._value = self._open(stack)
                    self._closing = stack.pop_all()
            return self._value

    def _close(self) -> None:
        self._value = None
        self._closing.close()
