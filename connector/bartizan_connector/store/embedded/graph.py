"""The graph: an approximate index over many dense vectors, whose answers are looked up in the truth and scored anew."""

from dataclasses import dataclass, replace
from functools import cache, lru_cache
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
_BREADTHS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)
_PROBES = 48
"""Of each kind."""
GOAL = 0.96
"""The recall at 10 that the breadth of a search is chosen for."""
_SPARE = 5
_TOLD_APART = 0.98
"""Of the nearest ten, those that are among the nearest so many more by their bytes."""
_SCAN_ROWS = 4_000
"""When fewer rows are allowed, all of them are compared."""
_SCANNED = 128
"""So many rows are compared in no more time than a walk takes that is broader by one."""
_SKIPPED = 20
"""And so many are passed over as not allowed in the time that comparing one takes."""
_MANY = 8
"""When more than one row in so many is asked for, all are compared too."""
_BLOCK = 512
_MOST = 127
_HALF, _HALF_PEAK = 65_504.0, 2.0**14
"""The largest number of two bytes, and where the largest of the first rows comes."""
_LEAST, _LARGEST = 1e-30, 1e15
"""A byte a dimension cannot tell rows apart whose numbers are all smaller, or of which one is larger."""


@cache
def is_possible() -> bool:
    """Whether the library is installed."""
    return find_spec("faiss") is not None


@cache
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


def products_of(matrix: Floats, rows: Numbers, query: Floats) -> Floats:
    """Inner products with these rows, which are read where they lie."""
    if not matrix.flags.c_contiguous or not query.flags.c_contiguous:
        return products(matrix[rows], query)
    faiss = library()
    scores = np.empty(len(rows), np.float32)
    pointers = [faiss.swig_ptr(each) for each in (scores, query, matrix, rows)]
    with one_thread():
        faiss.fvec_inner_products_by_idx(*pointers, matrix.shape[1], 1, len(rows))
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Vectors in one byte a dimension and their neighbours, as of one moment; never changed once it is shared."""

    rows: Numbers
    index: Any
    scale: float
    """What vectors are multiplied by before they are rounded."""
    is_whole: bool
    """Whether to whole numbers of a byte; else to floating ones of two bytes."""
    moment: Moment
    breadth: int
    recall: float
    """Measured on some of its own vectors when it was built."""

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, query: Floats, k: int, selected: "Selection | None") -> Numbers:
        """The positions of about the k best among those that are selected."""
        count = len(self) if selected is None else selected.count
        k = min(k, count)
        if not k:
            return np.zeros(0, np.int64)
        query = _whole(query) if self.is_whole else _directed(query)
        breadth = max(self.breadth, k)
        if selected is not None:
            breadth = breadth * len(self) // count  # of which as many pass as otherwise are found
        with one_thread():
            if not self._is_scanned(k, count, breadth):
                found, _ = asked(self.index, query, k if selected is None else breadth, _walking(breadth))
                if selected is not None:
                    found = found[selected.mask[found]][:k]
                if len(found) == k:
                    return found
            return asked(self.index.storage, query, k, None if selected is None else selected.scanning)[0]

    def _is_scanned(self, k: int, count: int, breadth: int) -> bool:
        """Whether to compare all that are selected: it misses none, so it is done where a walk saves no time."""
        if k * _MANY >= count:
            return True
        if count == len(self):
            return False
        return count <= _SCAN_ROWS or count + len(self) // _SKIPPED <= breadth * _SCANNED


class Selection:
    """Rows of a graph that may be found."""

    def __init__(self, mask: Mask) -> None:
        faiss = library()

        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self._bits = np.packbits(mask, bitorder="little")
        self._selector = faiss.IDSelectorBitmap(self._bits)
        self.scanning = faiss.SearchParameters(sel=self._selector)


def _directed(query: Floats) -> Floats:
    """The query's direction, with 1 as its largest number, so that no product of it leaves what float32 can hold."""
    peak = np.abs(query).max(initial=np.float32(0.0))
    directed: Floats = query / peak if peak else query
    return directed


def _whole(query: Floats) -> Floats:
    """The query's direction in whole numbers, as the library rounds a query for such codes by itself."""
    whole: Floats = _directed(query) * np.float32(_MOST)
    return np.rint(whole, out=whole)


@lru_cache(64)
def _walking(breadth: int) -> Any:
    """What a walk of that breadth is asked with; many may use it at once. A bounded queue would be slower by a half."""
    parameters = library().SearchParametersHNSW(efSearch=breadth)
    parameters.bounded_queue = False
    return parameters


def asked(index: Any, query: Floats, k: int, parameters: Any) -> tuple[Numbers, Floats]:
    """The positions and scores of the k best, without the ceremony of the library's own call."""
    swig_ptr = library().swig_ptr
    query = np.ascontiguousarray(query, np.float32)
    scores, found = np.empty(k, np.float32), np.empty(k, np.int64)
    index.search_c(1, swig_ptr(query), k, swig_ptr(scores), swig_ptr(found), parameters)
    if found[-1] < 0:
        scores, found = scores[found >= 0], found[found >= 0]
    return found, scores


class one_thread:
    """For one query, several threads of the library cost more than they bring: they wait for each other."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        faiss = library()
        self._before = faiss.omp_get_max_threads()
        if self._before != 1:
            faiss.omp_set_num_threads(1)  # of the calling thread only

    def __exit__(self, *_: object) -> None:
        if self._before != 1:
            library().omp_set_num_threads(self._before)


class Building:
    """Makes a graph, block by block, so that it can be stopped."""

    def __init__(self, dim: int, stop: Event, threads: int) -> None:
        faiss = library()

        self._stop = stop
        self._rows: list[Numbers] = []
        self._dim = dim
        self._index: Any = None
        self._scale = 1.0
        self._is_whole = True
        faiss.omp_set_num_threads(threads)  # of this thread only

    def begin(self, sample: Floats) -> bool:
        """With an empty graph, for vectors like these; False where none can hold them."""
        faiss = library()

        peak = float(np.abs(sample).max(initial=0.0))
        if not _LEAST < peak < _LARGEST:
            return False
        self._scale, kind = _MOST / peak, faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._is_whole = _is_told_apart(sample, self._scale)  # whole numbers are compared in half the time
        if not self._is_whole:
            self._scale, kind = _HALF_PEAK / peak, faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexHNSWSQ(self._dim, kind, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = _BUILD_BREADTH
        self._index.train(sample)
        return True

    def can_take(self, matrix: Floats) -> bool:
        """Whether these vectors can be told apart beside the others."""
        return bool(np.abs(matrix).max(initial=0.0) < _LARGEST)

    def resume(self, graph: Graph) -> None:
        """With a copy of one that was built."""
        faiss = library()

        self._index = faiss.clone_index(graph.index)
        self._scale, self._is_whole = graph.scale, graph.is_whole
        self._rows = [graph.rows]

    def add(self, rows: Numbers, matrix: Floats) -> bool:
        """Rows by rising number; False when it was stopped."""
        for start in range(0, len(matrix), _BLOCK):
            if self._stop.is_set():
                return False
            some = matrix[start : start + _BLOCK]
            self._index.add(_rounded(some, self._scale, _MOST) if self._is_whole else _scaled(some, self._scale, _HALF))
        self._rows.append(rows)
        return True

    def finished(self, moment: Moment) -> Graph:
        """The graph, with the least breadth that finds what comparing everything finds."""
        graph = Graph(np.concatenate(self._rows), self._index, self._scale, self._is_whole, moment, _BREADTHS[0], 1.0)
        asked = _probes(graph)
        if graph.is_whole:
            asked = np.stack([_whole(query) for query in asked])
        truth = _scanned(graph, asked)
        for breadth in _BREADTHS:
            graph = replace(graph, breadth=breadth, recall=_recall(graph, asked, truth, breadth))
            if graph.recall >= GOAL:
                break
        return graph


def _probes(graph: Graph) -> Floats:
    """What may be asked: near a stored vector; between two; and a stored one's direction among other things."""
    dice = np.random.default_rng(0)
    pairs = dice.integers(0, len(graph), (3 * _PROBES, 2))
    one, other = (graph.index.storage.reconstruct_batch(pair.astype(np.int64)) for pair in pairs.T)
    near, between, among = (slice(each * _PROBES, (each + 1) * _PROBES) for each in range(3))
    noise = dice.standard_normal(one[among].shape)
    noise *= np.linalg.norm(one[among], axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    asked = (
        0.85 * one[near] + 0.15 * other[near],
        0.7 * one[between] + 0.3 * other[between],
        0.6 * one[among] + 0.8 * noise,
    )
    return np.ascontiguousarray(np.concatenate(asked), np.float32)


def _is_told_apart(sample: Floats, scale: float) -> bool:
    """Whether bytes of one scale keep the nearest rows near: not where one dimension, or one row, is far larger than
    the others."""
    dice = np.random.default_rng(0)
    one, other = dice.integers(0, len(sample), (2, _PROBES))
    asked = (0.85 * sample[one] + 0.15 * sample[other]).astype(np.float32)
    k = min(10, len(sample))
    spare = min(k + _SPARE, len(sample))
    codes = _rounded(sample, scale, _MOST)
    found = 0
    for query in asked:
        best = np.argpartition(-products(sample, query), k - 1)[:k]
        near = np.argpartition(-products(codes, _whole(query)), spare - 1)[:spare]
        found += len(np.intersect1d(best, near))
    return found >= _TOLD_APART * k * len(asked)


def _scaled(matrix: Floats, scale: float, most: float) -> Floats:
    """Cut off where the codes end."""
    with np.errstate(over="ignore"):
        scaled: Floats = np.clip(matrix * np.float32(scale), -most, most)
    return scaled


def _rounded(matrix: Floats, scale: float, most: float) -> Floats:
    """As bytes hold it."""
    whole: Floats = np.rint(_scaled(matrix, scale, most))
    return whole


def _scanned(graph: Graph, queries: Floats) -> Any:
    """The 10 best by their bytes."""
    return graph.index.storage.search(queries, min(10, len(graph)))[1]


def _recall(graph: Graph, queries: Floats, truth: Any, breadth: int) -> float:
    """Recall at 10 of a search of that breadth beside a scan."""
    _, found = graph.index.search(queries, truth.shape[1], params=_walking(breadth))
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


def save(graph: Graph, path: Path) -> None:
    faiss = library()

    faiss.write_index(graph.index, str(path))


def load(path: Path) -> Any:
    faiss = library()

    return faiss.read_index(str(path))
