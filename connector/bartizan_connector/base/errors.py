"""Errors, named for what the caller should do about them.

    BartizanError                exit code 1
    ├── Retry(reason, after)     4   the same call may work in `after` seconds: something is unreachable or busy
    │   └── Forgotten            4   what was written lately may be gone, and has to be written again
    ├── Reject(ids, reason)      1   these never will, the others may: dead-letter them and go on
    ├── Displaced(reason)        1   another writes these ids now: what was decided by what stood there counts no more
    └── Stop(reason)             1   a human is needed
        ├── WrongUse             2   a command, configuration or request that cannot mean anything
        │   └── NotAText         2   what came as a text is none
        ├── SpaceMismatch        3   vectors of two spaces would have met
        └── Interrupted        130   a person broke it off; how to go on

Adapters translate their library's exceptions where they call it; the pipeline and the command line react, nobody else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec


class BartizanError(Exception):
    """Root of everything Bartizan raises on purpose."""

    exit_code = 1
    way_out = ""
    """What to do about it, where that is known as a part of its own; it stands in the message too."""


class Retry(BartizanError):
    """The same call may succeed later: something it needs is unreachable, overloaded or too slow."""

    exit_code = 4

    def __init__(self, reason: str, *, after: float = 1.0) -> None:
        super().__init__(reason)
        self.after = after


class Forgotten(Retry):
    """The store was away, and may not hold any more what was written since it last made all of that durable."""


class Reject(BartizanError):
    """These ids can never succeed as they are; the rest of the batch may."""

    def __init__(self, ids: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.ids = tuple(ids)
        self.reason = reason


class Displaced(BartizanError):
    """Another worker of the group writes these ids since their heads were read; nothing of this call was completed."""


class Stop(BartizanError):
    """Nothing sensible can follow until a human has acted."""


class WrongUse(Stop):
    """A command, a configuration or a request that is malformed."""

    exit_code = 2


class NotAText(WrongUse):
    """What the caller gave as a text is none: another type, or half a character."""


class SpaceMismatch(Stop):
    """Two different vector spaces would have met; nothing was returned or written."""

    exit_code = 3

    def __init__(self, what: str, *, expected: str, came: str, way_out: str) -> None:
        super().__init__(f"{what}: expected space {expected}, but {came} came. {way_out}")
        self.expected = expected
        self.came = came
        self.way_out = way_out


class Interrupted(Stop):
    """A person broke the work off (Ctrl-C). The code is the one that shells give."""

    exit_code = 130


@contextmanager
def interruptible(way_on: str) -> Iterator[None]:
    """Ctrl-C inside ends with what became of the work, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {way_on}") from error


def missing_extra(module: str, extra: str) -> WrongUse:
    """The error for an optional dependency that is not installed, with the line that installs it."""
    line = f"pip install 'bartizan-search[{extra}]'"
    error = WrongUse(f"this needs the package '{module}', which is not installed: {line}")
    error.way_out = line
    return error


def require_installed(modules: Sequence[str], extra: str) -> None:
    """Refuse when one of the modules is not installed. Asked before they are imported: what fails halfway into a large
    package seldom says why."""
    for module in modules:
        if find_spec(module) is None:
            raise missing_extra(module.replace("_", "-"), extra)
