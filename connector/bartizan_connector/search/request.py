"""A request: what is asked of a retriever, checked before anything is searched."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store import filters
from bartizan_connector.store.collection import Collection
from bartizan_connector.store.filters import And, Compare, Filter, In, Not, Or

MAX_K = 1000
_LONGEST = 1e6
"""Seconds. What the system's clocks take; a deadline beyond it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A query that can mean something."""

    query: str
    k: int
    filter: Filter | None
    legs: frozenset[str] | None
    """The legs that are asked for; None: all."""
    begun: float
    deadline: float


def checked(
    collection: Collection,
    query: object,
    k: object,
    filter: object,
    legs: object,
    timeout: object,
) -> Request:
    """The request, once each part is found to be of its type and to fit the collection."""
    begun = time.perf_counter()
    if not isinstance(query, str):
        raise _wrong("query", "a text", query)
    if not query.strip():
        raise WrongUse("the query is empty; give a few words")
    if not isinstance(k, int) or isinstance(k, bool):
        raise _wrong("k", f"a whole number from 1 to {MAX_K}", k)
    if not 1 <= k <= MAX_K:
        raise WrongUse(f"k = {k} is out of range; ask for 1 to {MAX_K} results")
    return Request(
        query=query,
        k=k,
        filter=checked_filter(filter, collection),
        legs=_legs(legs),
        begun=begun,
        deadline=begun + min(seconds(timeout, "timeout"), _LONGEST),
    )


def seconds(value: object, name: str) -> float:
    """A deadline that can be kept."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "seconds, a number above 0", value)
    if not (math.isfinite(value) and value > 0):
        raise WrongUse(f"{name} = {value} is no deadline; give seconds, a finite number above 0")
    return float(value)


def checked_filter(value: object, collection: Collection) -> Filter | None:
    """The filter, given as a text or as a value, once it is found to fit the collection."""
    if value is None:
        return None
    parsed = filters.parse(value) if isinstance(value, str) else value
    if not isinstance(parsed, Compare | In | And | Or | Not):
        raise _wrong("filter", 'a text such as "year >= 2020", or a Filter of store.filters', value)
    filters.check(parsed, collection)
    return parsed


def _legs(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise _wrong("legs", 'a list of names such as ["dense", "lexical"]', value)
    if len(set(names)) < len(names):
        raise WrongUse(f"legs = {list(names)!r:.80} names a leg twice; name each once")
    return frozenset(names)


def _wrong(name: str, expected: str, came: object) -> WrongUse:
    return WrongUse(f"{name} must be {expected}, but {came!r:.80} ({type(came).__name__}) came; give {expected}")
