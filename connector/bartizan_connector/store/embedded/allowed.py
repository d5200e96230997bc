"""Which rows pass a filter, remembered: a row never changes under its number, so only new ones are asked for."""

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np

from bartizan_connector.store.embedded.filters_sql import condition
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.rows import Moment, Numbers, passing_rows
from bartizan_connector.store.filters import Filter

_FILTERS = 64
_NUMBERS = 4_000_000
"""Row numbers remembered in all: 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Passing:
    """The rows that pass a filter; the same object as long as nothing was added."""

    filter: Filter
    rows: Numbers
    """Rising; some may be gone."""


class Allowed:
    """Row numbers by filter, for one collection; rows that are gone may still be among them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = Lock()
        self._known: OrderedDict[Filter, tuple[Moment, Passing]] = OrderedDict()

    def passing(self, connection: sqlite3.Connection, now: Moment, filter: Filter) -> Passing:
        """The rows that pass now. What was read at a later moment lacks what has gone since, so it counts for none
        before."""
        nothing = Passing(filter, np.zeros(0, np.int64))
        with self._lock:
            then, known = self._known.get(filter) or (Moment(0, 0, now.gone), nothing)
        if then.sequence > now.sequence or now.gone - then.gone > max(1_000, len(known.rows)):
            then, known = Moment(0, 0, now.gone), nothing
        if then.top < now.top:
            fresh = passing_rows(connection, self._layout, condition(filter, self._layout), then.top)
            if len(fresh):
                known = Passing(filter, np.concatenate([known.rows, fresh]))
            then = Moment(now.sequence, now.top, then.gone)
        with self._lock:
            self._known[filter] = (then, known)
            self._known.move_to_end(filter)
            while len(self._known) > 1 and (
                len(self._known) > _FILTERS or sum(len(each.rows) for _, each in self._known.values()) > _NUMBERS
            ):
                self._known.popitem(last=False)
        return known


def positions(rows: Numbers, wanted: Numbers) -> Numbers:
    """Where the wanted numbers stand among the rising rows; those that are not there are left out."""
    if not len(rows):
        return np.zeros(0, np.int64)
    found = np.searchsorted(rows, wanted)
    found[found == len(rows)] = 0
    there: Numbers = found[rows[found] == wanted]
    return there
