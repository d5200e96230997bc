"""Building graphs in the background: when, by whom, and how they come to those who search."""

import logging
import os
import threading
import time
from contextlib import suppress

import numpy as np

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.collection import Leg
from bartizan_connector.store.embedded import graph as graphs
from bartizan_connector.store.embedded.graph import Building, Graph
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.embedded.rows import Moment, Numbers, blobs_above, moment
from bartizan_connector.store.embedded.sidecar import Sidecar
from bartizan_connector.store.embedded.writing import KEPT_GONE

log = logging.getLogger(__name__)

EXACT_FLOATS = 4_000_000
"""Numbers that are compared one by one within a millisecond: 10,000 rows of 384."""
_FEWEST = 1_000
_SHARE = 20
"""A graph of so many times the rows that came since is left as it is."""
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
        self._ready: Graph | None = None
        self._looked = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._tried = 0.0
        self._told: tuple[Graph | None, int, int] = (None, 0, 0)

    @property
    def remarks(self) -> list[str]:
        graph, tail, _ = self._told
        told = []
        if self._wanted and not graphs.is_possible() and tail > self._limit:
            told.append(
                f"leg {self._leg.name}: {tail} rows are compared one by one, as the package 'faiss' is not installed; "
                "pip install 'bartizan-search[local]' makes searching faster"
            )
        if graph is not None and graph.recall < graphs.GOAL:
            told.append(
                f"leg {self._leg.name}: the index finds {graph.recall:.0%} of the nearest rows at its broadest; "
                'set [backend] index = "flat" for exact search'
            )
        return told

    def ready(self, current: Graph | None, now: Moment) -> Graph | None:
        """A graph newer than the current one that fits into this moment."""
        if not self._possible:
            return None
        if not self._looked:
            self._looked = True
            self._ready = self._sidecar.load()
        found, self._ready = self._ready, None
        if found is None or not _fits(found, now):
            return None
        return found if current is None or current.moment.sequence < found.moment.sequence else None

    def consider(self, graph: Graph | None, tail: int, dead: int) -> None:
        """Begin to build when there is reason to."""
        self._told = (graph, tail, dead)
        if self._is_due() and time.monotonic() - self._tried > _PAUSE:
            with self._lock:
                if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                    return
                self._tried = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="bartizan-index", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Build here and now what is due, or wait for it."""
        if self._thread is not None:
            self._thread.join()
        if self._is_due() and self._ready is None and not self._stop.is_set():
            self._build(self._told[0])

    def anew(self) -> None:
        """Build from nothing, here and now."""
        if self._possible and self._told[1] + len(self._told[0] or ()) > self._limit:
            self._build(None)

    def close(self) -> None:
        """Stop what is being built."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _is_due(self) -> bool:
        graph, tail, dead = self._told
        if not self._possible:
            return False
        size = len(graph) if graph is not None else 0
        return tail > max(self._limit, size // _SHARE) or dead * _DEAD > max(size, _DEAD * _FEWEST)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread, on Linux
        try:
            self._build(self._told[0])
        except (BartizanError, RuntimeError, MemoryError) as error:
            log.warning("an index of %s was not built: %s", self._layout.collection.name, error)

    def _build(self, current: Graph | None) -> None:
        with self._sidecar.building() as ours:
            if self._sidecar.is_new():
                saved = self._sidecar.load()
                if saved is not None and (current is None or saved.moment.sequence > current.moment.sequence):
                    self._ready = saved
                    return
            if ours:
                built = self._built(current)
                if built is not None:
                    self._ready = built
                    self._sidecar.save(built)

    def _built(self, current: Graph | None) -> Graph | None:
        """A graph of what is there now: the current one grown, or one made anew where much of it is gone."""
        now = self._now()
        if now is None:
            return None
        dead = self._told[2]
        if current is not None and (dead * _DEAD > len(current) or not _fits(current, now)):
            current = None
        making = Building(self._leg.dim, self._stop, os.cpu_count() or 1)
        after, grown = 0, current is not None
        if current is not None:
            making.resume(current)
            after = current.moment.top
        gone = now.gone if current is None else current.moment.gone
        while True:
            rows, matrix = self._page(after, now.top)
            if not len(rows):
                break
            if not grown:
                making.begin(matrix)
                grown = True
            if not making.add(rows, matrix):
                return None
            after = int(rows[-1])
        return making.finished(Moment(now.sequence, now.top, gone)) if grown else None

    def _now(self) -> Moment | None:
        with self._place.reading() as connection:
            return moment(connection, self._layout.physical)

    def _page(self, after: int, top: int) -> tuple[Numbers, Floats]:
        """The next rows, in a moment of their own, so that no long transaction keeps the log from being emptied."""
        with self._place.reading() as connection:
            if moment(connection, self._layout.physical) is None:
                return np.zeros(0, np.int64), np.zeros((0, self._leg.dim), np.float32)
            lines = blobs_above(connection, self._layout, self._leg.name, after, top).fetchmany(_READ_ROWS)
        matrix = np.frombuffer(b"".join(blob for _, blob in lines), "<f4").reshape(-1, self._leg.dim)
        return np.array([row for row, _ in lines], np.int64), matrix.astype(np.float32, copy=False)


def _fits(graph: Graph, now: Moment) -> bool:
    """Whether the graph is of this moment or before, and what is gone since is still listed."""
    then = graph.moment
    return then.sequence <= now.sequence and then.top <= now.top and 0 <= now.gone - then.gone <= KEPT_GONE
