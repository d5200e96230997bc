"""Postings: for each term the rows that have it, in memory; they follow a table of sparse vectors."""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded.allowed import Passing, positions
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.rows import Moment, Numbers, blobs_above, gone_since
from bartizan_connector.store.embedded.writing import KEPT_GONE

_READ_ROWS = 4_096
_MANY = 8
"""Segments beyond which they are merged."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Some rows, and for each term where it occurs among them and how much it weighs there."""

    rows: Numbers
    terms: npt.NDArray[np.int32]
    starts: Numbers
    owners: npt.NDArray[np.int32]
    weights: Floats
    sums: Floats
    """The weights of each row together."""
    alive: npt.NDArray[np.bool_] | None = None

    def spans(self, terms: npt.NDArray[np.int32]) -> list[tuple[int, slice]]:
        """Where the postings of these rising terms are: (which of the terms, the part); those without any left out."""
        if not len(self.terms) or not len(terms):
            return []
        at = np.searchsorted(self.terms, terms)
        at[at == len(self.terms)] = 0
        shared = np.flatnonzero(self.terms[at] == terms).tolist()
        return [(which, slice(int(self.starts[at[which]]), int(self.starts[at[which] + 1]))) for which in shared]

    def best(
        self, parts: Sequence[tuple[slice, npt.NDArray[np.float64]]], k: int, allowed: Passing | None
    ) -> tuple[Numbers, Floats]:
        """From what each posting adds, in the order of the terms: the row numbers and scores of the k best, and of all
        that tie with the last of them."""
        if not parts:
            return self.rows[:0], np.zeros(0, np.float32)
        owners = np.concatenate([self.owners[part] for part, _ in parts])
        added = np.concatenate([values for _, values in parts])
        scores = _rounded(np.bincount(owners, weights=added, minlength=len(self.rows)))
        if allowed is not None:
            passing = np.zeros(len(self.rows), np.bool_)
            passing[positions(self.rows, allowed.rows)] = True
            scores[~passing] = 0
        if self.alive is not None:
            scores[~self.alive] = 0
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        return self.rows[found], scores[found]

    def without(self, gone: Numbers) -> "Segment":
        dead = positions(self.rows, gone)
        if not len(dead):
            return self
        alive = np.ones(len(self.rows), np.bool_) if self.alive is None else self.alive.copy()
        alive[dead] = False
        return replace(self, alive=alive)


def segment(rows: Numbers, terms: npt.NDArray[np.int32], owners: npt.NDArray[np.int32], weights: Floats) -> Segment:
    """Postings in any order of terms, put in order; those of one term stay in the order they came."""
    order = np.argsort(terms, kind="stable")
    terms, owners, weights = terms[order], owners[order], weights[order]
    distinct, first = np.unique(terms, return_index=True)
    sums = _rounded(np.bincount(owners, weights=weights, minlength=len(rows)))
    return Segment(rows, distinct, np.append(first, len(terms)).astype(np.int64), owners, weights, sums)


def _rounded(sums: npt.NDArray[Any]) -> Floats:
    """To float32; infinity where that ends, as in the oracle."""
    with np.errstate(over="ignore"):
        rounded: Floats = sums.astype(np.float32)
    return rounded


def merged(segments: list[Segment]) -> Segment:
    """One of them all, without what is gone."""
    rows, terms, owners, weights, before = [], [], [], [], 0
    for each in segments:
        alive = np.ones(len(each.rows), np.bool_) if each.alive is None else each.alive
        kept = alive[each.owners]
        moved = np.cumsum(alive) - 1 + before
        rows.append(each.rows[alive])
        terms.append(np.repeat(each.terms, np.diff(each.starts))[kept])
        owners.append(moved[each.owners[kept]].astype(np.int32))
        weights.append(each.weights[kept])
        before += int(alive.sum())
    return segment(np.concatenate(rows), np.concatenate(terms), np.concatenate(owners), np.concatenate(weights))


@dataclass(frozen=True, slots=True, eq=False)
class PostingsView:
    """The index as of one moment; never changed once it is made."""

    moment: Moment
    segments: tuple[Segment, ...]


class Postings:
    """Follows one table; `view` is called with the owner's lock held."""

    def __init__(self, layout: Layout, table: str) -> None:
        self._layout = layout
        self._table = table
        self._view: PostingsView | None = None
        self._thread: threading.Thread | None = None
        self._merged: tuple[tuple[Segment, ...], int, Segment] | None = None
        """What was merged: the segments' rows, the list's length when it began, and what came of it."""

    def view(self, connection: sqlite3.Connection, now: Moment, deadline: Deadline) -> PostingsView:
        """The index as of now. What was read when the deadline came is kept for the next one who asks."""
        view = self._view
        if view is None or view.moment.sequence > now.sequence or now.gone - view.moment.gone > KEPT_GONE:
            view = PostingsView(Moment(0, 0, now.gone), ())
        if view.moment != now:
            fresh, whole = self._fresh(connection, view.moment, now, deadline)
            segments = (*self._adopted(connection, view), *fresh)
            if not whole:
                top = int(segments[-1].rows[-1]) if fresh else view.moment.top
                self._view = PostingsView(replace(view.moment, top=top), segments)
                raise deadline.late()
            if now.gone > view.moment.gone:
                gone = gone_since(connection, self._layout, view.moment.gone)
                segments = tuple(each.without(gone) for each in segments)
            view = PostingsView(now, segments)
        if view is not self._view:
            self._view = view
            self._consider(view)
        return view

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _fresh(
        self, connection: sqlite3.Connection, then: Moment, now: Moment, deadline: Deadline
    ) -> tuple[list[Segment], bool]:
        """A segment of the rows that are new, and whether of all of them: the deadline may come first."""
        whole = True
        rows: list[int] = []
        parts: list[tuple[npt.NDArray[np.int32], Floats]] = []
        cursor = blobs_above(connection, self._table, then.top, now.top)
        while lines := cursor.fetchmany(_READ_ROWS):
            for row, blob in lines:
                rows.append(row)
                half = len(blob) // 8
                parts.append((np.frombuffer(blob, "<i4", count=half), np.frombuffer(blob, "<f4", offset=4 * half)))
            if deadline.has_passed:
                whole = False
                break
        if not rows:
            return [], whole
        owners = np.repeat(np.arange(len(rows), dtype=np.int32), [len(indices) for indices, _ in parts])
        terms = np.concatenate([indices for indices, _ in parts])
        weights = np.concatenate([weights for _, weights in parts])
        return [segment(np.array(rows, np.int64), terms, owners, weights)], whole

    def _consider(self, view: PostingsView) -> None:
        """Merge in the background when there are many."""
        if len(view.segments) <= _MANY or self._merged is not None:
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._merge, args=(view,), name="bartizan-index", daemon=True)
            self._thread.start()

    def _merge(self, view: PostingsView) -> None:
        """The last ones, down to the first that is larger than all behind it."""
        size, start = 0, len(view.segments)
        while start and (len(view.segments) - start < 2 or len(view.segments[start - 1].rows) <= 2 * size):
            start -= 1
            size += len(view.segments[start].rows)
        self._merged = (view.segments[start:], view.moment.gone, merged(list(view.segments[start:])))

    def _adopted(self, connection: sqlite3.Connection, view: PostingsView) -> tuple[Segment, ...]:
        """The segments, with what was merged in the place of its parts."""
        ready, self._merged = self._merged, None
        if ready is None:
            return view.segments
        parts, gone, whole = ready
        firsts = [int(each.rows[0]) for each in view.segments]
        first = int(parts[0].rows[0])
        if first not in firsts or view.moment.gone - gone > KEPT_GONE:
            return view.segments
        start = firsts.index(first)
        if [int(each.rows[0]) for each in parts] != firsts[start : start + len(parts)]:
            return view.segments
        kept = [whole.without(gone_since(connection, self._layout, gone))] if len(whole.rows) else []
        return (*view.segments[:start], *kept, *view.segments[start + len(parts) :])
