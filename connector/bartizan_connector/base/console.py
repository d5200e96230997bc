"""The terminal: results to stdout; remarks and errors to stderr, of which `--quiet` leaves the errors."""

import re
from contextlib import suppress
from json import dumps, loads
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter

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


class _Remarks(_Printable):
    """Stderr: where it cannot be written (a full disk, a closed pipe), what was to be said is lost, nothing else."""

    def print(self, *objects: Any, **options: Any) -> None:
        with suppress(OSError):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Nobody listens any more; the work goes on."""


out = _Printable(highlight=False, soft_wrap=True)
err = _Remarks(stderr=True, highlight=False, soft_wrap=True)


def counted(count: int, one: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def complain(text: str, *, style: str = "red") -> None:
    """Say on stderr why a command ends, `--quiet` or not."""
    quiet, err.quiet = err.quiet, False
    try:
        err.print(text, markup=False, style=style)
    finally:
        err.quiet = quiet
