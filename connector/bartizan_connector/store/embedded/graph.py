"""The graph: an approximate index over many dense vectors, whose answers are looked up in the truth and scored anew."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded.rows import Moment, Numbers

Mask = npt.NDArray[np.bool_]

_NEIGHBOURS = 32
_BUILD_BREADTH = 80
_BREADTHS = (64, 128, 256, 512)
_PROBES = 48
GOAL = 0.97
"""The recall at 10 that the breadth of a search is chosen for."""
_SCAN_ROWS = 20_000
_SCAN_SHARE = 0.05
"""When fewer rows are allowed, all of them are compared instead."""
_BLOCK = 512


def is_possible() -> bool:
    """Whether the library is installed."""
    return find_spec("faiss") is not None


def _library() -> Any:
    return import_module("faiss")


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Vectors in one byte a dimension and their neighbours, as of one moment; never changed once it is shared."""

    rows: Numbers
    index: Any
    moment: Moment
    breadth: int
    recall: float
    """Measured on some of its own vectors when it was built."""

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, query: Floats, k: int, mask: Mask | None) -> Numbers:
        """The positions of about the k best among those that the mask lets pass."""
        faiss = _library()

        asked = query[None]
        if mask is None:
            breadth = max(self.breadth, k)
            _, (found,) = self.index.search(
                asked, min(k, len(self)), params=faiss.SearchParametersHNSW(efSearch=breadth)
            )
            return np.asarray(found[found >= 0], np.int64)
        passing = int(np.count_nonzero(mask))
        k = min(k, passing)
        if not k:
            return np.zeros(0, np.int64)
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if passing > max(_SCAN_ROWS, _SCAN_SHARE * len(self)):
            breadth = int(max(self.breadth, k) * min(8.0, len(self) / passing))
            parameters = faiss.SearchParametersHNSW(efSearch=breadth, sel=selector)
            _, (found,) = self.index.search(asked, k, params=parameters)
            found = found[found >= 0]
            if len(found) == k:
                return np.asarray(found, np.int64)
        return self.scanned(asked, k, selector)

    def scanned(self, asked: Floats, k: int, selector: Any) -> Numbers:
        """The same by comparing every vector that is selected."""
        faiss = _library()

        _, (found,) = self.index.storage.search(asked, k, params=faiss.SearchParameters(sel=selector))
        return np.asarray(found[found >= 0], np.int64)


class Building:
    """Makes a graph, block by block, so that it can be stopped."""

    def __init__(self, dim: int, stop: Event, threads: int) -> None:
        faiss = _library()

        self._stop = stop
        self._rows: list[Numbers] = []
        self._dim = dim
        self._index: Any = None
        faiss.omp_set_num_threads(threads)  # of this thread only

    def begin(self, sample: Floats) -> None:
        """With an empty graph, for vectors like these."""
        faiss = _library()

        quantizer = faiss.ScalarQuantizer.QT_8bit
        self._index = faiss.IndexHNSWSQ(self._dim, quantizer, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = _BUILD_BREADTH
        self._index.train(sample)

    def resume(self, graph: Graph) -> None:
        """With a copy of one that was built."""
        faiss = _library()

        self._index = faiss.clone_index(graph.index)
        self._rows = [graph.rows]

    def add(self, rows: Numbers, matrix: Floats) -> bool:
        """Rows by rising number; False when it was stopped."""
        for start in range(0, len(matrix), _BLOCK):
            if self._stop.is_set():
                return False
            self._index.add(matrix[start : start + _BLOCK])
        self._rows.append(rows)
        return True

    def finished(self, moment: Moment) -> Graph:
        """The graph, with the least breadth that finds what comparing everything finds."""
        graph = Graph(np.concatenate(self._rows), self._index, moment, _BREADTHS[0], 1.0)
        for breadth in _BREADTHS:
            recall = _probed(graph, breadth)
            graph = Graph(graph.rows, graph.index, moment, breadth, recall)
            if recall >= GOAL:
                break
        return graph


def _probed(graph: Graph, breadth: int) -> float:
    """Recall at 10 of a search of that breadth beside a scan, for vectors between two that are stored."""
    faiss = _library()

    dice = np.random.default_rng(0)
    pairs = dice.integers(0, len(graph), (_PROBES, 2))
    one, other = (graph.index.storage.reconstruct_batch(pair.astype(np.int64)) for pair in pairs.T)
    asked = np.ascontiguousarray(0.7 * one + 0.3 * other, np.float32)
    k = min(10, len(graph))
    _, truth = graph.index.storage.search(asked, k)
    _, found = graph.index.search(asked, k, params=faiss.SearchParametersHNSW(efSearch=breadth))
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


def save(graph: Graph, path: Path) -> None:
    faiss = _library()

    faiss.write_index(graph.index, str(path))


def load(path: Path) -> Any:
    faiss = _library()

    return faiss.read_index(str(path))
