"""The dense index of one leg: a graph over most rows once there are many, and an exact tail of what came since."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.collection import Hit, Leg
from bartizan_connector.store.embedded.allowed import Passing, positions
from bartizan_connector.store.embedded.building import Builder
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.graph import Graph, Mask, Selection
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.embedded.rows import Moment, Numbers, blobs, blobs_above, gone_since, hits
from bartizan_connector.store.embedded.tail import Growing, Tail, exact_scores
from bartizan_connector.store.embedded.writing import KEPT_GONE
from bartizan_connector.store.filters import Filter

_READ_ROWS = 4_096
_SPARE = 4
"""Candidates beyond k that are scored anew, as one byte a dimension orders near ones wrongly."""
_SELECTIONS = 64
_FEW_DEAD = 20
"""One row of the graph in so many."""


@dataclass(frozen=True, slots=True, eq=False)
class _Selected:
    """The rows of a graph that a filter selects, as of one moment; for later ones too, as what goes is not shown."""

    graph: Graph
    alive: Mask | None
    sequence: int
    rows: Selection

    def serves(self, view: "View", alive: Mask | None) -> bool:
        return self.graph is view.graph and self.alive is alive and self.sequence <= view.moment.sequence


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The index as of one moment; never changed once it is made."""

    moment: Moment
    graph: Graph | None
    alive: Mask | None
    """Which rows of the graph are there still; None: all."""
    tail: Tail
    dead: int = 0
    """How many rows of the graph are gone."""


class DenseIndex:
    """Follows the truth; `view` is called with the owner's lock held, `search` without."""

    def __init__(self, place: Place, layout: Layout, leg: Leg, builder: Builder) -> None:
        self._place = place
        self._layout = layout
        self._leg = leg
        self._builder = builder
        self._growing = Growing(leg.dim)
        self._view: View | None = None
        self._selections: dict[Filter | None, _Selected] = {}

    def view(self, connection: sqlite3.Connection, now: Moment, deadline: Deadline) -> View:
        """The index as of now. What was read when the deadline came is kept for the next one who asks."""
        view = self._view
        if view is not None and (view.moment.sequence > now.sequence or now.gone - view.moment.gone > KEPT_GONE):
            view = None
        ready = self._builder.ready(view.graph if view else None, now)
        known = view is not None
        if view is None:
            view = self._begun(ready)
        elif ready is not None:
            view = self._adopting(connection, view, ready)
        if view.moment != now:
            if known:  # to read it for the first time is no change
                self._place.changed()
            view = self._forgetting(connection, self._growing_with(connection, view, now, deadline), now)
        if view is not self._view:
            dead = 0 if view.alive is None else len(view.alive) - int(np.count_nonzero(view.alive))
            self._view = view = replace(view, tail=self._growing.coded(view.tail), dead=dead)
            self._builder.consider(view.graph, len(view.tail), dead)
        return view

    def search(
        self,
        connection: sqlite3.Connection,
        view: View,
        queries: Floats,
        k: int,
        allowed: Passing | None,
        deadline: Deadline,
    ) -> list[list[Hit]]:
        """The k best rows for each query, in the moment of the connection, which is the view's."""
        exact = view.tail.best(queries, k, allowed, deadline)
        selected = self._selection(view, allowed)
        answers = []
        for query, (rows, scores) in zip(queries, exact, strict=True):
            deadline.check()
            scored = dict(zip(rows.tolist(), scores.tolist(), strict=True))
            if view.graph is not None:
                scored |= self._approximate(connection, view.graph, query, k, selected)
            answers.append(hits(connection, self._layout, scored, k))
        return answers

    def _approximate(
        self, connection: sqlite3.Connection, graph: Graph, query: Floats, k: int, selected: Selection | None
    ) -> dict[int, float]:
        """Candidates of the graph that the truth still has, with the score of the stored vector."""
        wanted = k + _SPARE + k // 8
        while True:
            found = graph.nearest(query, wanted, selected)
            kept = blobs(connection, self._layout, self._leg.name, graph.rows[found].tolist())
            if len(kept) >= k or len(kept) == len(found) or len(found) < wanted or wanted >= len(graph):
                break
            wanted *= 4
        if not kept:
            return {}
        scores = exact_scores(_matrix(list(kept.values()), self._leg.dim), query)
        return dict(zip(kept, scores.tolist(), strict=True))

    def _selection(self, view: View, allowed: Passing | None) -> Selection | None:
        """Which rows of the graph may be found; remembered from commit to commit. While few rows are gone they are
        found like the others, and not shown: then nothing that is written makes it anew."""
        if view.graph is None:
            return None
        alive = view.alive if view.alive is not None and view.dead * _FEW_DEAD > len(view.graph) else None
        if alive is None and allowed is None:
            return None
        key = allowed.filter if allowed else None
        known = self._selections.get(key)
        if known is None or not known.serves(view, alive):
            mask = alive
            if allowed is not None:
                mask = np.zeros(len(view.graph), np.bool_)
                mask[positions(view.graph.rows, allowed.rows)] = True
                mask = mask if alive is None else mask & alive
            assert mask is not None
            if len(self._selections) > _SELECTIONS or (known is not None and known.graph is not view.graph):
                self._selections.clear()
            known = self._selections[key] = _Selected(view.graph, alive, view.moment.sequence, Selection(mask))
        return known.rows

    def _begun(self, graph: Graph | None) -> View:
        tail = Tail.empty(self._leg.dim)
        self._growing = Growing(self._leg.dim)
        return View(graph.moment if graph else Moment(0, 0, -1), graph, None, tail)

    def _adopting(self, connection: sqlite3.Connection, view: View, graph: Graph) -> View:
        """The graph in place of the rows that it covers."""
        keep = int(np.searchsorted(view.tail.rows, graph.moment.top, "right"))
        old = view.tail
        alive = None if old.alive is None else old.alive[keep:]
        self._growing = Growing(self._leg.dim)
        tail = self._growing.appended(Tail.empty(self._leg.dim), old.rows[keep:], old.matrix[keep:])
        tail = replace(tail, alive=None if alive is None or alive.all() else alive)
        gone = gone_since(connection, self._layout, graph.moment.gone)
        return View(view.moment, graph, _without(graph.rows, None, gone), tail)

    def _growing_with(self, connection: sqlite3.Connection, view: View, now: Moment, deadline: Deadline) -> View:
        """With the rows that are new."""
        tail, then = view.tail, view.moment
        gone = now.gone if then.gone < 0 else then.gone
        cursor = blobs_above(connection, self._layout.vectors(self._leg.name), view.moment.top, now.top)
        while lines := cursor.fetchmany(_READ_ROWS):
            rows = np.array([row for row, _ in lines], np.int64)
            tail = self._growing.appended(tail, rows, _matrix([blob for _, blob in lines], self._leg.dim))
            if deadline.has_passed:
                self._view = replace(view, tail=tail, moment=Moment(then.sequence, int(rows[-1]), gone))
                raise deadline.late()
        return replace(view, tail=tail)

    def _forgetting(self, connection: sqlite3.Connection, view: View, now: Moment) -> View:
        """Without the rows that are gone."""
        alive, tail = view.alive, view.tail
        if now.gone > view.moment.gone >= 0:
            gone = gone_since(connection, self._layout, view.moment.gone)
            if view.graph is not None:
                alive = _without(view.graph.rows, alive, gone)
            tail = replace(tail, alive=_without(tail.rows, tail.alive, gone))
            dead = 0 if tail.alive is None else int((~tail.alive).sum())
            if dead > 1_024 and 4 * dead > len(tail):
                self._growing = Growing(self._leg.dim)
                empty = Tail.empty(self._leg.dim)
                tail = self._growing.appended(empty, tail.rows[tail.alive], tail.matrix[tail.alive])
        return View(now, view.graph, alive, tail)


def _without(rows: Numbers, alive: Mask | None, gone: Numbers) -> Mask | None:
    """Which of the rows are alive once those are gone too."""
    dead = positions(rows, gone)
    if not len(dead):
        return alive
    alive = np.ones(len(rows), np.bool_) if alive is None else alive.copy()
    alive[dead] = False
    return alive


def _matrix(stored: Sequence[bytes], dim: int) -> Floats:
    return np.frombuffer(b"".join(stored), dtype="<f4").reshape(-1, dim).astype(np.float32, copy=False)
