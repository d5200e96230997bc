"""The deadline of one search: looked at between blocks, and by SQLite while a statement runs."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Self

from bartizan_connector.base.errors import Retry

_STEPS = 20_000
"""Of SQLite's machine between two looks: a fraction of a millisecond."""

_NEVER = nullcontext()


class Deadline:
    """A moment by which to answer; without seconds, never."""

    def __init__(self, seconds: float | None, what: str) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds
        self._what = what

    @classmethod
    def never(cls) -> Self:
        return cls(None, "")

    @property
    def has_passed(self) -> bool:
        return self._at is not None and time.monotonic() > self._at

    def check(self) -> None:
        """Raise Retry once it has passed."""
        if self.has_passed:
            raise self.late()

    def late(self) -> Retry:
        return Retry(f"{self._what} had not answered by the deadline", after=0.0)

    def holding(self, lock: Lock) -> AbstractContextManager[object]:
        """The lock, if it can be had in time."""
        return lock if self._at is None else self._held(lock, self._at)

    def over(self, connection: sqlite3.Connection) -> AbstractContextManager[object]:
        """While this connection is used, whatever it is asked breaks off at the deadline."""
        return _NEVER if self._at is None else self._looked_at(connection)

    @contextmanager
    def _held(self, lock: Lock, at: float) -> Iterator[None]:
        if not lock.acquire(timeout=max(0.0, at - time.monotonic())):
            raise self.late()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _looked_at(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.set_progress_handler(lambda: self.has_passed, _STEPS)
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise self.late() from error
            raise
        finally:
            connection.set_progress_handler(None, 0)
