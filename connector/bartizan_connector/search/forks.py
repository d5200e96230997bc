"""What a forked process must begin anew: threads stay behind, and a lock held at the fork stays held for ever."""

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """What has threads of its own."""

    def begin_anew(self) -> None:
        """Have no thread, and nothing that one is at work on."""
        ...


_all: "WeakSet[Forked]" = WeakSet()


def anew_when_forked(what: Forked) -> None:
    """Have it begin anew in every process that is forked from this one, for as long as it is there."""
    _all.add(what)


def _in_the_child() -> None:
    for each in list(_all):
        each.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
