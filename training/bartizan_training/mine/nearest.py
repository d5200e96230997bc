"""The nearest documents of each query by exact search, in blocks: memory does not grow with the collection."""

from typing import Any

import numpy as np

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store import exact
from bartizan_training.data.ragged import Indices

BLOCK = 1 << 16
"""Documents that are searched at once: 100 MB of vectors of 384 components."""
_QUERIES = 1 << 14


def nearest(queries: Floats, documents: Floats, k: int, *, block: int = BLOCK) -> tuple[Indices, Floats]:
    """Positions and inner products of the min(k, documents) nearest documents of each query, best first, ties in order
    of position. `documents` may be a file's: one block of it is read at a time.

    By faiss where it is installed, on every GPU that it has been built for and finds.
    """
    found = np.zeros((len(queries), 0), dtype=np.int64), np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(documents), block):
        vectors = np.ascontiguousarray(documents[start : start + block], dtype=np.float32)
        positions, scores = _of_block(np.ascontiguousarray(queries, dtype=np.float32), vectors, min(k, len(vectors)))
        found = _best(np.hstack([found[0], positions + start]), np.hstack([found[1], scores]), k)
    return found


def _of_block(queries: Floats, vectors: Floats, k: int) -> tuple[Indices, Floats]:
    try:
        import faiss
    except ImportError:
        return exact.top_k(queries, vectors, k)
    index: Any = faiss.IndexFlatIP(vectors.shape[1])
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(vectors)
    parts = [index.search(queries[start : start + _QUERIES], k) for start in range(0, len(queries), _QUERIES)]
    return np.vstack([part[1] for part in parts]), np.vstack([part[0] for part in parts])


def _best(positions: Indices, scores: Floats, k: int) -> tuple[Indices, Floats]:
    """The k best columns of each row."""
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
