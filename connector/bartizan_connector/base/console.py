"""The terminal: results to stdout; progress and remarks to stderr, with bars only where a person is watching."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Printable(Console):
    """Shows a control character of a document as a sign: a terminal would obey it."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def printable(text: str) -> str:
    """The text with a sign for each control character but the line end and the tab."""
    return _CONTROLS.sub("\ufffd", text)


out = _Printable(highlight=False, soft_wrap=True)
err = _Printable(stderr=True, highlight=False, soft_wrap=True)


class Tick(Protocol):
    """Says that `done` more units are finished."""

    def __call__(self, done: int = 1) -> None: ...


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Tick]:
    """A progress bar on a terminal; a start and an end line in a log."""
    if not err.is_terminal:
        err.print(f"{what} …", markup=False)
        count = 0

        def tick_silently(done: int = 1) -> None:
            nonlocal count
            count += done

        yield tick_silently
        err.print(f"{what}: {count:,} done", markup=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=total)

        def tick(done: int = 1) -> None:
            bar.advance(task, done)

        yield tick
