"""How far a long step is: a bar where a person is watching, a line every ten seconds in a log, nothing when quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bartizan_connector.base.console import err

SECONDS_BETWEEN_LINES = 10.0


class Tick(Protocol):
    """Says that `done` more units are finished; `note` (a loss, say) stands beside the count until the next one."""

    def __call__(self, done: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int | None = None, *, begun: int = 0) -> Iterator[Tick]:
    """Shows how many of `total` units are done, how fast, and how long the rest will take; `begun` were done before."""
    if err.quiet:
        yield lambda done=1, note="": None
    elif err.is_terminal:
        yield from _bar(what, total, begun)
    else:
        yield from _lines(what, total, begun)


def _bar(what: str, total: int | None, begun: int) -> Iterator[Tick]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=total, completed=begun, note="")

        def tick(done: int = 1, note: str = "") -> None:
            bar.advance(task, done)
            if note:
                bar.update(task, note=note)

        yield tick


def _lines(what: str, total: int | None, begun: int) -> Iterator[Tick]:
    """By a thread of its own: a line comes too where one unit takes minutes."""
    lines, over = _Lines(what, total, begun), Event()

    def speak() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            err.print(lines.line(), markup=False)

    err.print(f"{what} …", markup=False)
    speaker = Thread(target=speak, name="bartizan-progress", daemon=True)
    speaker.start()
    try:
        yield lines.tick
    finally:
        over.set()
        speaker.join()
    err.print(f"{what}: {lines.count:,} done", markup=False)


class _Lines:
    """Counts, and knows the rate since the line before."""

    def __init__(self, what: str, total: int | None, begun: int) -> None:
        self.count = begun
        self._what, self._total, self._note = what, total, ""
        self._before, self._since = begun, time.monotonic()

    def tick(self, done: int = 1, note: str = "") -> None:
        self.count += done
        self._note = note or self._note

    def line(self) -> str:
        count, now = self.count, time.monotonic()
        rate = (count - self._before) / max(now - self._since, 1e-9)
        self._before, self._since = count, now
        of = f" of {self._total:,}" if self._total else ""
        told = [f"{self._what}: {count:,}{of} done", f"{rate:,.{0 if rate >= 10 else 1}f} a second"]
        if self._total and rate > 0:
            told.append(f"about {_time(max(0, self._total - count) / rate)} left")
        return ", ".join([*told, *([self._note] if self._note else [])])


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
