"""Words of a command that cannot be: what came, what was expected, and where the rest is told."""

import re
from collections.abc import Sequence
from typing import Any

from bartizan_connector.base.console import complain

_PLAIN = (
    (re.compile(r"Input should be a valid integer.*"), "must be a whole number"),
    (re.compile(r"Input should be a valid number.*"), "must be a number"),
    (re.compile(r"Input should be a valid boolean.*"), "must be true or false"),
    (re.compile(r"Input should be "), "must be "),
    (re.compile(r" is not a valid (int|integer)\.?$"), " is no whole number"),
    (re.compile(r" is not a valid float\.?$"), " is no number"),
)
"""What the library says of programs, in words."""


def is_usage(error: Exception) -> bool:
    """Whether the library that reads the words refused them (its releases differ in where the class stands)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def tell_usage(error: Any, arguments: Sequence[str]) -> int:
    """Say what is wrong with the words; the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
        return int(error.exit_code)
    told = str(error.format_message()).removesuffix(".")
    for pattern, plain in _PLAIN:
        told = pattern.sub(plain, told)
    came = _came(getattr(error, "param", None), arguments)
    if came is not None and "must be" in told:
        told = f"{told}, but {came!r:.80} came"
    ctx = getattr(error, "ctx", None)
    command = getattr(ctx, "command_path", "bartizan")
    usage = f"{ctx.get_usage().strip()}\n" if ctx is not None else ""
    complain(f"{usage}error: {told}{'' if told.endswith('?') else '.'} {command} --help tells more")
    return int(error.exit_code)


def _came(param: Any, arguments: Sequence[str]) -> str | None:
    """What was given for an option."""
    options = getattr(param, "opts", [])
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        option, equals, value = word.partition("=")
        if word in options:
            return following
        if equals and option in options:
            return value
    return None
