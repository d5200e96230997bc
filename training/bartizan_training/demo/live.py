"""How fresh the index is, shown while it changes: a line that moves on a terminal, lines in a log, a table last."""

import time
from collections.abc import Callable
from statistics import quantiles
from types import TracebackType
from typing import Self

from rich.live import Live as Moving
from rich.table import Table

from bartizan_connector.base.console import err, out

_SECONDS_BETWEEN_LINES = 5.0
_LAST = 40
"""Of the newest, a bar each."""
_BARS = "▁▂▃▄▅▆▇█"


class Live:
    """Takes in freshness: seconds from produced to found by a search."""

    def __init__(self, edits: int, say: Callable[[str], None]) -> None:
        self._edits = edits
        self._say = say
        self._found: list[float] = []
        self._spoke = time.monotonic()
        self._moving: Moving | None = None

    def __enter__(self) -> Self:
        if err.is_terminal and not err.quiet:
            self._moving = Moving(console=err, refresh_per_second=8)
            self._moving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._moving is not None:
            self._moving.stop()
            self._moving = None

    def found(self, seconds: float, sent: int) -> None:
        """One more edit was found."""
        self._found.append(seconds)
        if self._moving is not None:
            self._moving.update(f"   {_bars(self._found[-_LAST:]):<{_LAST}}  {self._line(sent)}")
        elif time.monotonic() - self._spoke > _SECONDS_BETWEEN_LINES:
            self._spoke = time.monotonic()
            self._say(self._line(sent))

    def summary(self, sent: int, documents: int) -> None:
        """What it came to."""
        table = Table("edits sent", "seen by a search", "produced → found, p50", "p99", "slowest", "lost")
        p50, p99 = percentiles(self._found)
        seconds = (f"{value:.2f} s" for value in (p50, p99, max(self._found, default=0.0)))
        table.add_row(f"{sent:,}", f"{len(self._found):,}", *seconds, "0")
        table.caption = f"All {documents:,} documents are stored as they were last edited; what was removed is gone."
        out.print(table)

    def _line(self, sent: int) -> str:
        p50, p99 = percentiles(self._found)
        return (
            f"{sent:,} of {self._edits:,} edits sent; produced → found: last {self._found[-1]:.2f} s, "
            f"p50 {p50:.2f} s, p99 {p99:.2f} s"
        )


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median, and what one in a hundred exceeds."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def _bars(values: list[float]) -> str:
    most = max(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)
