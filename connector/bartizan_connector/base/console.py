"""The terminal: results to stdout; progress and remarks to stderr, with bars only where a person is watching."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps, loads
from typing import Any, Protocol

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey instead of showing it: controls, line separators, changes of the direction of writing; and
half characters, which it cannot show."""


class _Printable(Console):
    """Shows what a terminal would obey as a sign, whatever a document holds."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)

    def print_json(self, json: str | None = None, *, data: Any = None, **options: Any) -> None:
        """In JSON nothing is lost: such a character stands there by its number."""
        text = dumps(data if json is None else loads(json), indent=2, ensure_ascii=False)
        shown = JSONHighlighter()(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        shown.no_wrap, shown.overflow = True, "ignore"
        super().print(shown, **options)


def printable(text: str) -> str:
    """The text with a sign for each character that a terminal would obey, but the line end and the tab."""
    return _OBEYED.sub("\ufffd", text)


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
