"""Stdout while a command runs: a disk that is full, and a reader that has gone, end the command as what they are."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bartizan_connector.base.errors import Stop

NOBODY_READS = 141
"""The exit code that shells give to who writes into a pipe that was closed, as `| head` does."""


@contextmanager
def guarded_output() -> Iterator[None]:
    """Everything that is printed inside, by whomever, goes through the guard; flushed at the end."""
    real = sys.stdout
    if real is None:  # the program was started without one
        yield
        return
    guard: Any = _Guard(real)
    sys.stdout = guard
    try:
        yield
    finally:
        try:
            guard.flush()
        finally:
            if sys.stdout is guard:
                sys.stdout = real


class _Guard:
    """The stream, with its failures told."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _told(self._stream):
            return int(self._stream.write(text))

    def flush(self) -> None:
        with _told(self._stream):
            self._stream.flush()


@contextmanager
def _told(stream: Any) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _let_go(stream)
        raise SystemExit(NOBODY_READS) from None
    except OSError as error:
        _let_go(stream)
        raise Stop(f"the output cannot be written: {error.strerror or error}") from error


def _let_go(stream: Any) -> None:
    """What is still in the buffer goes nowhere: the interpreter would fail over it once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
