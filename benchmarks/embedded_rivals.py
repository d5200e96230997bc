"""The engines that the embedded store is measured beside, each at the least breadth that finds 95 % of what is near."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.space.vectors import Floats
from benchmarks.embedded_rows import DIM, drawn, rows

K = 10
FILTER = "year < 10"
"""One row in ten passes."""
_GOAL = 0.95
_ASKED = 100
"""Queries by which a breadth is chosen; others than those that are measured."""
Search = Callable[[Floats, bool], list[int]]
"""A query, and whether the filter is asked for → the numbers of the rows found."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One store with all rows in it."""

    search: Search
    rows_per_second: float | None
    megabytes: float | None
    filters: bool = True


def nearest(matrix: Floats, asked: Floats, filtered: bool) -> list[list[int]]:
    """The numbers of the K nearest rows to each query, of those that pass."""
    numbers = np.arange(len(matrix))
    if filtered:
        numbers = numbers[numbers % 100 < 10]
        matrix = matrix[numbers]
    best: list[list[int]] = []
    for query in asked:
        scores = matrix @ query
        best.append(numbers[np.argpartition(-scores, K)[:K]].tolist())
    return best


def least(
    breadths: Sequence[int], search: Callable[[Floats, bool, int], list[int]], matrix: Floats, filtered: bool
) -> int:
    """The least of the breadths by which the goal is reached; the last where none does."""
    asked = drawn(_ASKED, 4, max(50, len(matrix) // 100))
    truth = nearest(matrix, asked, filtered)
    for breadth in breadths[:-1]:
        found = [
            len(set(search(query, filtered, breadth)) & set(best)) for query, best in zip(asked, truth, strict=True)
        ]
        if sum(found) >= _GOAL * K * len(asked):
            return breadth
    return breadths[-1]


def bare_faiss(matrix: Floats) -> Engine:
    """Nothing but the index: no fields, no filters, nothing on disk."""
    import faiss

    few = len(matrix) <= 10_000
    if few:
        index: Any = faiss.IndexFlatIP(DIM)
    else:
        index = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 24, faiss.METRIC_INNER_PRODUCT)  # type: ignore[arg-type]
        index.hnsw.efConstruction = 64
    begun = time.perf_counter()
    if not index.is_trained:
        index.train(matrix)
    index.add(matrix)
    seconds = time.perf_counter() - begun

    def asking(breadth: int) -> Search:
        given = None if few else faiss.SearchParametersHNSW(efSearch=breadth)  # type: ignore[attr-defined]

        def search(vector: Floats, filtered: bool) -> list[int]:
            before = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(1)
            _, (found,) = index.search(vector[None], K, params=given)
            faiss.omp_set_num_threads(before)
            return [int(number) for number in found]

        return search

    breadths = (64, 96, 128, 192, 256, 384, 512)
    breadth = 0 if few else least(breadths, lambda query, f, b: asking(b)(query, f), matrix, False)
    return Engine(asking(breadth), len(matrix) / seconds, None, filters=False)


def _lancedb(place: Path, matrix: Floats) -> Engine:
    import lancedb  # type: ignore[import-not-found,unused-ignore]

    base = lancedb.connect(str(place))
    table: Any = None
    seconds = 0.0
    for batch in rows(matrix):
        lines = [{"number": int(r.id[1:]), "vector": r.vectors["dense"].value, **r.fields} for r in batch]
        begun = time.perf_counter()
        if table is None:
            table = base.create_table("bench", lines)
        else:
            table.add(lines)
        seconds += time.perf_counter() - begun
    begun = time.perf_counter()
    indexed = len(matrix) > 10_000
    if indexed:  # its documentation advises one partition a million rows for this kind
        table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1)
    table.optimize()
    seconds += time.perf_counter() - begun

    def searched(vector: Floats, filtered: bool, breadth: int) -> list[int]:
        asked = table.search(vector).distance_type("dot").limit(K).refine_factor(2)
        if indexed:
            asked = asked.ef(breadth)
        if filtered:
            asked = asked.where(FILTER, prefilter=True)
        return [line["number"] for line in asked.to_list()]

    breadths = (32, 64, 128, 256, 512, 1024)
    chosen = {f: least(breadths, searched, matrix, f) if indexed else 0 for f in (False, True)}
    return Engine(lambda vector, f: searched(vector, f, chosen[f]), len(matrix) / seconds, size_of(place))


def _qdrant(place: Path, matrix: Floats) -> Engine:
    from qdrant_client import QdrantClient, models  # type: ignore[import-not-found,unused-ignore]

    client = QdrantClient(path=str(place))
    client.create_collection("bench", models.VectorParams(size=DIM, distance=models.Distance.DOT))
    seconds = 0.0
    for batch in rows(matrix):
        points = [
            models.PointStruct(
                id=int(r.id[1:]), vector=np.asarray(r.vectors["dense"].value).tolist(), payload=dict(r.fields)
            )
            for r in batch
        ]
        begun = time.perf_counter()
        client.upsert("bench", points)
        seconds += time.perf_counter() - begun
    narrow = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(lt=10))])

    def search(vector: Floats, filtered: bool) -> list[int]:
        found = client.query_points("bench", vector, query_filter=narrow if filtered else None, limit=K)
        return [point.id for point in found.points]

    return Engine(search, len(matrix) / seconds, size_of(place))


RIVALS = (
    ("LanceDB", "lancedb", _lancedb, 10_000_000),
    ("Qdrant local", "qdrant_client", _qdrant, 10_000),  # minutes of ingestion beyond
)


def size_of(place: Path) -> float:
    """Megabytes of all files below."""
    return sum(each.stat().st_size for each in place.rglob("*") if each.is_file()) / 1e6
