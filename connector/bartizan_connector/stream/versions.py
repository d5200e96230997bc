"""The one domain of versions that all sources share: milliseconds since 1970 × 2²⁰, plus a number in the millisecond.

A stamp never lies after the moment at which it is read: a clock that was ahead when something was written must not make
later news look old. Else it is the same at every reading, so that a replay is no news.
"""

import time

NUMBER_BITS = 20


def stamp(milliseconds: int, number: int = 0, *, now: float | None = None) -> int:
    """The version of the `number`-th change of that millisecond; of this one, where that one is still to come."""
    present = int((time.time() if now is None else now) * 1000)
    return (max(0, min(milliseconds, present)) << NUMBER_BITS) + number


def time_of(version: int) -> str:
    """The moment that a stamped version means, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(version >> NUMBER_BITS, 253_402_300_799_999) / 1000))


def latest(now: float) -> int:
    """The highest version that the millisecond of `now` (seconds since 1970) gives; what is above it is to come."""
    return ((int(now * 1000) + 1) << NUMBER_BITS) - 1
