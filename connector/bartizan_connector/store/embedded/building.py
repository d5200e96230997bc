"""Building graphs in the background: when, by whom, and how they come to those who search."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.collection import Leg
from bartizan_connector.store.embedded import graph as graphs
from bartizan_connector.store.embedded.graph import Building, Graph
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.embedded.rows import Moment, Numbers, blobs_above, count_to, moment
from bartizan_connector.store.embedded.sidecar import Sidecar
from bartizan_connector.store.embedded.writing import KEPT_GONE

log = logging.getLogger(__name__)

EXACT_FLOATS = 4_000_000
"""Numbers that are compared one by one within a millisecond: 10,000 rows of 384."""
_FEWEST = 1_000
_FEW = 4
_SHARE = 40
"""Once there is a graph, it grows when more came since than one part in so many of either."""
_FEW_LEFT = 256
"""Fewer than that are left beside a graph when its writer closes: each search would pay for them."""
_DEAD = 4
"""One row in so many that is gone: the graph is made anew."""
_READ_ROWS = 8_192
_PAUSE = 1.0
_NICE = 10


class Builder:
    """Makes and keeps the graphs of one leg. `kind`: as [backend] index."""

    def __init__(self, place: Place, layout: Layout, leg: Leg, kind: str) -> None:
        self._place = place
        self._layout = layout
        self._leg = leg
        self._limit = _FEWEST if kind == "hnsw" else EXACT_FLOATS // leg.dim
        self._wanted = kind != "flat"
        self._possible = self._wanted and graphs.is_possible()
        self._sidecar = Sidecar(place.path, f"{layout.physical}.{layout.collection.legs.index(leg)}")
        self._newest: Graph | None = None
        self._looked = False
        self._too_few = 0
        """Up to this row number there were too few to be worth a graph, or some that none can hold."""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._tried = 0.0
        self._tail = 0

    @property
    def remarks(self) -> list[str]:
        told = []
        if self._wanted and not graphs.is_possible() and self._tail > self._limit:
            told.append(
                f"leg {self._leg.name}: {self._tail} rows are compared one by one, as the package 'faiss' is not "
                "installed; pip install 'bartizan-search[local]' makes searching faster"
            )
        if self._newest is not None and self._newest.recall < graphs.GOAL:
            told.append(
                f"leg {self._leg.name}: the index finds {self._newest.recall:.0%} of the nearest rows at its broadest; "
                'set [backend] index = "flat" for exact search'
            )
        return told

    def ready(self, current: Graph | None, now: Moment) -> Graph | None:
        """A graph newer than the current one that fits into this moment."""
        if not self._possible:
            return None
        newest = self._known()
        if newest is None or newest is current or not _fits(newest, now):
            return None
        return newest if current is None or current.moment.sequence < newest.moment.sequence else None

    def consider(self, graph: Graph | None, tail: int, dead: int) -> None:
        """Begin to build when those who search would gain by it."""
        self._tail = tail
        size = len(graph) if graph is not None else 0
        if tail > self._most(graph) or dead * _DEAD > max(size, _DEAD * _FEWEST):
            self._start()

    def wrote(self, now: Moment) -> None:
        """The same in the one who writes, who need not search."""
        if self._is_due(now):
            self._start()

    def finish(self) -> None:
        """Build here and now what is due."""
        self._join()
        now = self._now()
        if now is not None and self._is_due(now, closing=True) and not self._stop.is_set():
            self._build()

    def anew(self, *, early: bool = False, on_rows: Callable[[int, int], None] | None = None) -> None:
        """Build from nothing, here and now. `early`: as soon as hnsw would. `on_rows` hears of rows done, of all."""
        self._join()
        if self._possible:
            with self._sidecar.building():
                self._keep(self._built(None, min(self._limit, _FEWEST) if early else self._limit, on_rows))

    def standing(self) -> Graph | None:
        """The newest graph there is, built here or by another, where the configuration wants one."""
        if not self._possible:
            return None
        if self._sidecar.is_new() and (saved := self._sidecar.load()) is not None:
            known = self._newest
            if known is None or saved.moment.sequence > known.moment.sequence:
                self._newest = saved
        return self._known()

    def close(self) -> None:
        """Stop what is being built."""
        self._stop.set()
        self._join()

    def _known(self) -> Graph | None:
        """The newest graph that was built or loaded here."""
        if not self._looked:
            self._looked = True
            self._newest = self._sidecar.load()
        return self._newest

    def _is_due(self, now: Moment, *, closing: bool = False) -> bool:
        if not self._possible:
            return False
        graph = self._known()
        size, covered, gone = (len(graph), graph.moment.top, graph.moment.gone) if graph else (0, 0, now.gone)
        fresh = now.top - max(covered, self._too_few)
        most = max(_FEW_LEFT, size // _SHARE) if closing and graph is not None else self._most(graph)
        return fresh > most or now.gone - gone > max(size // _DEAD, _FEWEST)

    def _most(self, graph: Graph | None) -> int:
        """How many rows are well compared one by one, beside this graph."""
        return self._limit if graph is None else max(self._limit // _FEW, len(graph) // _SHARE)

    def _start(self) -> None:
        if not self._possible or time.monotonic() - self._tried < _PAUSE:
            return
        with self._lock:
            if not self._stop.is_set() and (self._thread is None or not self._thread.is_alive()):
                self._tried = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="bartizan-index", daemon=True)
                self._thread.start()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread, on Linux
        try:
            self._build()
        except (BartizanError, RuntimeError, MemoryError) as error:
            log.warning("an index of %s was not built: %s", self._layout.collection.name, error)

    def _build(self) -> None:
        """What another process has saved meanwhile, or one of our own if it is our turn."""
        with self._sidecar.building() as ours:
            current = self._known()
            if self._sidecar.is_new():
                saved = self._sidecar.load()
                if saved is not None and (current is None or saved.moment.sequence > current.moment.sequence):
                    self._newest = saved
                    return
            if ours:
                self._keep(self._built(current))

    def _keep(self, built: Graph | None) -> None:
        if built is not None:
            self._newest = built
            self._sidecar.save(built)

    def _built(
        self,
        current: Graph | None,
        limit: int | None = None,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> Graph | None:
        """The current graph with what came since, or a new one where much of it is gone; None where few rows are."""
        with self._place.reading() as connection:
            now = moment(connection, self._layout.physical)
            if now is None:
                return None
            if current is not None and (not _fits(current, now) or self._is_worn(connection, current, now)):
                current = None
            count = count_to(connection, self._layout, now.top)
            if current is None and count <= (self._limit if limit is None else limit):
                self._too_few = now.top
                return None
        making = Building(self._leg.dim, self._stop, os.cpu_count() or 1)
        after, gone, begun, done = 0, now.gone, False, 0
        if current is not None:
            making.resume(current)
            after, gone, begun = current.moment.top, current.moment.gone, True
        while True:
            rows, matrix = self._page(after, now.top)
            if not len(rows):
                break
            if not (making.can_take(matrix) if begun else making.begin(matrix)):
                self._too_few = now.top
                return None
            begun = True
            if not making.add(rows, matrix):
                return None
            after = int(rows[-1])
            done += len(rows)
            if on_rows is not None:
                on_rows(done, count)
        return making.finished(Moment(now.sequence, now.top, gone)) if begun else None

    def _is_worn(self, connection: sqlite3.Connection, graph: Graph, now: Moment) -> bool:
        dead = len(graph) - count_to(connection, self._layout, graph.moment.top)
        return dead * _DEAD > len(graph)

    def _now(self) -> Moment | None:
        with self._place.reading() as connection:
            return moment(connection, self._layout.physical)

    def _page(self, after: int, top: int) -> tuple[Numbers, Floats]:
        """The next rows, in a moment of their own, so that no long transaction keeps the log from being emptied."""
        with self._place.reading() as connection:
            if moment(connection, self._layout.physical) is None:
                return np.zeros(0, np.int64), np.zeros((0, self._leg.dim), np.float32)
            lines = blobs_above(connection, self._layout.vectors(self._leg.name), after, top).fetchmany(_READ_ROWS)
        matrix = np.frombuffer(b"".join(blob for _, blob in lines), "<f4").reshape(-1, self._leg.dim)
        return np.array([row for row, _ in lines], np.int64), matrix.astype(np.float32, copy=False)


def _fits(graph: Graph, now: Moment) -> bool:
    """Whether the graph is of this moment or before, and what is gone since is still listed."""
    then = graph.moment
    return then.sequence <= now.sequence and then.top <= now.top and 0 <= now.gone - then.gone <= KEPT_GONE
