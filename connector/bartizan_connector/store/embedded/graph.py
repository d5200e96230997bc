"""The graph: an approximate index over many dense vectors, whose answers are looked up in the truth and scored anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
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

_NEIGHBOURS = 24
_BUILD_BREADTH = 64
_BREADTHS = (64, 128, 256, 512)
_PROBES = 48
GOAL = 0.97
"""The recall at 10 that the breadth of a search is chosen for."""
_SCAN_ROWS = 20_000
_SCAN_SHARE = 0.05
"""When fewer rows are allowed, all of them are compared instead."""
_MANY = 8
"""When more than one row in so many is asked for, all are compared too."""
_BLOCK = 512


@cache
def is_possible() -> bool:
    """Whether the library is installed."""
    return find_spec("faiss") is not None


def library() -> Any:
    """faiss."""
    return import_module("faiss")


def products(matrix: Floats, query: Floats) -> Floats:
    """Inner products with every row, by one thread: the threads of a matrix library wait for each other where the
    processors have other work."""
    if not is_possible() or not matrix.flags.c_contiguous or not query.flags.c_contiguous:
        return matrix @ query
    faiss = library()
    scores = np.empty(len(matrix), np.float32)
    pointers = [faiss.swig_ptr(each) for each in (scores, query, matrix)]
    faiss.fvec_inner_products_ny(*pointers, matrix.shape[1], len(matrix))
    return scores


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

    def nearest(self, query: Floats, k: int, selected: "Selection | None") -> Numbers:
        """The positions of about the k best among those that are selected."""
        faiss, asked = library(), query[None]
        count = len(self) if selected is None else selected.count
        k = min(k, count)
        if not k:
            return np.zeros(0, np.int64)
        with one_thread():
            selector = None if selected is None else faiss.IDSelectorBitmap(selected.bits)
            if k * _MANY < count and count > (0 if selector is None else max(_SCAN_ROWS, _SCAN_SHARE * len(self))):
                breadth = int(max(self.breadth, k) * min(8.0, len(self) / count))
                parameters = faiss.SearchParametersHNSW(efSearch=breadth, sel=selector)
                found = _found(self.index.search(asked, k, params=parameters))
                if len(found) == k:
                    return found
            return _found(self.index.storage.search(asked, k, params=faiss.SearchParameters(sel=selector)))


class Selection:
    """Rows of a graph that may be found, one bit each."""

    def __init__(self, mask: Mask) -> None:
        self.count = int(np.count_nonzero(mask))
        self.bits = np.packbits(mask, bitorder="little")


@contextmanager
def one_thread() -> Iterator[None]:
    """For one query, several threads of the library cost more than they bring: they wait for each other."""
    faiss = library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # of the calling thread only
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _found(answer: Any) -> Numbers:
    (found,) = answer[1]
    return np.asarray(found[found >= 0], np.int64)


class Building:
    """Makes a graph, block by block, so that it can be stopped."""

    def __init__(self, dim: int, stop: Event, threads: int) -> None:
        faiss = library()

        self._stop = stop
        self._rows: list[Numbers] = []
        self._dim = dim
        self._index: Any = None
        faiss.omp_set_num_threads(threads)  # of this thread only

    def begin(self, sample: Floats) -> None:
        """With an empty graph, for vectors like these."""
        faiss = library()

        quantizer = faiss.ScalarQuantizer.QT_8bit
        self._index = faiss.IndexHNSWSQ(self._dim, quantizer, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = _BUILD_BREADTH
        self._index.train(sample)

    def resume(self, graph: Graph) -> None:
        """With a copy of one that was built."""
        faiss = library()

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
    faiss = library()

    dice = np.random.default_rng(0)
    pairs = dice.integers(0, len(graph), (_PROBES, 2))
    one, other = (graph.index.storage.reconstruct_batch(pair.astype(np.int64)) for pair in pairs.T)
    asked = np.ascontiguousarray(0.7 * one + 0.3 * other, np.float32)
    k = min(10, len(graph))
    _, truth = graph.index.storage.search(asked, k)
    _, found = graph.index.search(asked, k, params=faiss.SearchParametersHNSW(efSearch=breadth))
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


def save(graph: Graph, path: Path) -> None:
    faiss = library()

    faiss.write_index(graph.index, str(path))


def load(path: Path) -> Any:
    faiss = library()

    return faiss.read_index(str(path))
