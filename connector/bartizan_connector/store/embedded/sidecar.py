"""Graphs on disk, beside the file: one process builds, the others load; whatever is missing or torn is built again."""

import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import BartizanError
from bartizan_connector.store.embedded import graph as graphs
from bartizan_connector.store.embedded.graph import Graph
from bartizan_connector.store.embedded.rows import Moment

try:
    import fcntl
except ImportError:  # no such locks on this system: every process builds its own
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_BLOCK = 1 << 24


def folder_of(path: Path) -> Path:
    """Where the graphs of a store lie. It may be removed at any time."""
    return path.with_name(path.name + "-indexes")


class Sidecar:
    """The saved graph of one leg."""

    def __init__(self, path: Path, name: str) -> None:
        self._folder = folder_of(path)
        self._name = name
        self._seen: object = None

    def is_new(self) -> bool:
        """Whether one was saved since it was last looked at."""
        try:
            stat = os.stat(self._told)
        except OSError:
            return False
        return (stat.st_ino, stat.st_mtime_ns) != self._seen

    def load(self) -> Graph | None:
        """What was saved last; None where there is nothing whole."""
        try:
            stat = os.stat(self._told)
            self._seen = (stat.st_ino, stat.st_mtime_ns)
            told = json.loads(self._told.read_bytes())
            path, rows = self._folder / told["graph"], self._folder / told["rows"]
            if _sum_of(path) != told["graph_sum"] or _sum_of(rows) != told["rows_sum"]:
                return None
            numbers = np.load(rows)
            index = graphs.load(path)
            if index.ntotal != len(numbers):
                return None
            codes = told["scale"], told["is_whole"]
            return Graph(numbers, index, *codes, Moment(**told["moment"]), told["breadth"], told["recall"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def save(self, graph: Graph) -> None:
        """Files of new names first, then the one that tells of them; failing is no fault, it is built again."""
        stem = f"{self._name}.{graph.moment.sequence}.{os.urandom(3).hex()}"
        made = (self._folder / f"{stem}.hnsw", self._folder / f"{stem}.npy")
        try:
            self._folder.mkdir(exist_ok=True)
            graphs.save(graph, made[0])
            np.save(made[1], graph.rows)
            told = {
                "graph": made[0].name,
                "graph_sum": _sum_of(made[0]),
                "rows": made[1].name,
                "rows_sum": _sum_of(made[1]),
                "scale": graph.scale,
                "is_whole": graph.is_whole,
                "moment": asdict(graph.moment),
                "breadth": graph.breadth,
                "recall": graph.recall,
            }
            write_aside(self._told, json.dumps(told))
        except (OSError, RuntimeError, BartizanError) as error:
            log.warning("an index of %s could not be saved beside it and will be built again: %s", self._name, error)
            for path in made:
                path.unlink(missing_ok=True)
            return
        for path in self._folder.glob(f"{self._name}.*"):
            if path.suffix in (".hnsw", ".npy") and path not in made:
                path.unlink(missing_ok=True)

    @contextmanager
    def building(self) -> Iterator[bool]:
        """True for the one process that is to build now."""
        if fcntl is None:
            yield True
            return
        try:
            self._folder.mkdir(exist_ok=True)
            handle = os.open(self._folder / f"{self._name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            yield True  # no room or no right to write there: it is built for this process alone
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
        finally:
            os.close(handle)

    @property
    def _told(self) -> Path:
        return self._folder / f"{self._name}.json"


def remove(path: Path, physical: str) -> None:
    """Remove the saved graphs of a collection."""
    for file in folder_of(path).glob(f"{physical}.*"):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _sum_of(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total
