"""The embedded store beside Milvus Lite, other embedded stores and bare faiss: searching, ingesting, and both at once.

The vectors are drawn (unit length, in clusters), and so are the texts: about 1 KB a row. Every engine holds the same
rows and answers the same queries, in blocks that take turns. What is asked for is a promise, said to be kept or not.
"""

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop
from bartizan_connector.space.vectors import Floats
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.embedded import EmbeddedBackend
from benchmarks.embedded_processes import beside_a_writer, opened_anew
from benchmarks.embedded_rivals import FILTER, RIVALS, Engine, K, bare_faiss, nearest, size_of
from benchmarks.embedded_rows import DIM, SPEC, drawn, query, rows
from benchmarks.record import Record, Table

SIZES = (5_000, 100_000)
_QUERIES = 160
_BLOCK = 25
_WARM = 2
_MOST_IN_LITE = 200_000
"""A search there looks at every row."""
_MANY = 1_000_000
"""From so many rows on, opening is promised to be quick and small."""
_Task = tuple[str, bool]
"""An engine by its name, and whether it is asked with the filter."""


def _through_the_seam(make: Callable[[], Backend], place: Path, matrix: Floats) -> tuple[Engine, Store, Backend]:
    """Ingest, close (indexes included), open again."""
    backend = make()
    store = backend.open(SPEC)
    seconds = 0.0
    for batch in rows(matrix):
        begun = time.perf_counter()
        store.upsert(batch)
        seconds += time.perf_counter() - begun
    begun = time.perf_counter()
    store.close()
    backend.close()
    seconds += time.perf_counter() - begun
    backend = make()
    opened = backend.open(SPEC, create=False)
    passing = filters.parse(FILTER)

    def search(vector: Floats, filtered: bool) -> list[int]:
        (hits,) = opened.search("dense", query(vector), K, passing if filtered else None)
        return [int(hit.id[1:]) for hit in hits]

    return Engine(search, len(matrix) / seconds, size_of(place)), opened, backend


def run(sizes: Sequence[int] = SIZES) -> None:
    """Measure at each size; raise when a promise is not kept."""
    record = Record("embedded_store" + "".join(f"-{size}" for size in sizes if tuple(sizes) != SIZES))
    results: dict[str, Any] = {}
    tables: dict[str, Table] = {}
    broken: list[str] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as aside:
            measured, table, kept = _measured(size, Path(aside))
        results[str(size)] = measured
        tables[f"{size:,} × {DIM}, best {K}"] = table
        tables[f"Promises at {size:,}"] = [
            {"promise": name, "kept": "yes" if is_kept else "NO"} for name, is_kept in kept
        ]
        broken += [f"{name} (at {size:,})" for name, is_kept in kept if not is_kept]
        record.write(results, tables)
    record.show()
    if broken:
        raise Stop(f"not kept: {'; '.join(broken)}")


def _measured(size: int, aside: Path) -> tuple[dict[str, Any], Table, list[tuple[str, bool]]]:
    clusters = max(50, size // 100)
    matrix, asked = drawn(size, 1, clusters), drawn(_QUERIES, 2, clusters)
    path = aside / "embedded" / "index.bartizan"
    engines, backend = _filled(matrix, path, aside)
    times, recalls = _timed(engines, matrix, asked)
    beside = beside_a_writer(path, asked)
    backend.close()
    opening = opened_anew(path)
    ms = {key: [round(float(np.percentile(each, at)) * 1e3, 3) for at in (50, 99)] for key, each in times.items()}
    promises = _promises(size, ms, recalls, beside, opening)
    kept = {
        "milliseconds": {f"{name}{', filtered' * f}": value for (name, f), value in ms.items()},
        "recall": {f"{name}{', filtered' * f}": round(value, 4) for (name, f), value in recalls.items()},
        "rows_per_second": {name: engine.rows_per_second for name, engine in engines.items()},
        "megabytes": {name: engine.megabytes for name, engine in engines.items()},
        "beside_a_writer_ms": beside,
        "opened_anew": opening,
        "promises": dict(promises),
    }
    return kept, _table(engines, ms, recalls), promises


def _filled(matrix: Floats, path: Path, aside: Path) -> tuple[dict[str, Engine], Backend]:
    """Every engine that is installed and can take so many rows; and the back-end of ours."""
    engines: dict[str, Engine] = {}
    err.print(f"{len(matrix):,} rows: embedded", markup=False)
    engines["embedded"], _, backend = _through_the_seam(lambda: EmbeddedBackend(path), path.parent, matrix)
    if find_spec("milvus_lite") and len(matrix) <= _MOST_IN_LITE:
        from bartizan_connector.store.milvus import MilvusBackend

        err.print("Milvus Lite", markup=False)
        lite = aside / "lite"
        lite.mkdir()
        made = _through_the_seam(lambda: MilvusBackend(str(lite / "index.db")), lite, matrix)
        engines["Milvus Lite"] = made[0]
    err.print("bare faiss", markup=False)
    engines["bare faiss"] = bare_faiss(matrix)
    for name, module, rival, limit in RIVALS:
        if len(matrix) > limit:
            continue
        if find_spec(module) is None:
            err.print(f"without {name}: the package {module} is not installed", markup=False)
            continue
        err.print(name, markup=False)
        engines[name] = rival(aside / module, matrix)
    return engines, backend


def _table(engines: Mapping[str, Engine], ms: Mapping[_Task, list[float]], recalls: Mapping[_Task, float]) -> Table:
    return [
        {
            "engine": name,
            "p50 ms": f"{ms[name, False][0]:.2f}",
            "p99 ms": f"{ms[name, False][1]:.2f}",
            "p50 ms, 10 % pass": f"{ms[name, True][0]:.2f}" if (name, True) in ms else "–",
            "p99 ms, 10 % pass": f"{ms[name, True][1]:.2f}" if (name, True) in ms else "–",
            "recall@10": f"{recalls[name, False]:.3f}",
            "recall@10, filtered": f"{recalls[name, True]:.3f}" if (name, True) in recalls else "–",
            "rows/s, indexes included": f"{engine.rows_per_second:,.0f}" if engine.rows_per_second else "–",
            "MB on disk": f"{engine.megabytes:,.0f}" if engine.megabytes else "–",
        }
        for name, engine in engines.items()
    ]


def _promises(
    size: int,
    ms: Mapping[_Task, list[float]],
    recalls: Mapping[_Task, float],
    beside: Mapping[str, float],
    opening: Mapping[str, float],
) -> list[tuple[str, bool]]:
    """Each, and whether it is kept."""
    ours = ms["embedded", False][0]
    recall = min(recalls["embedded", filtered] for filtered in (False, True))
    over = ours / ms["bare faiss", False][0]
    promises = [
        (f"p50 at most 1 ms ({ours:.2f})", ours <= 1.0),
        (f"recall@10 at least .95, with the filter too ({recall:.3f})", recall >= 0.95),
        (f"within 1.5 × of bare faiss ({over:.2f} ×)", over <= 1.5),
        (f"p99 while another process ingests ÷ quiet p99 at most 1.5 ({beside['ratio']:.2f})", beside["ratio"] <= 1.5),
    ]
    if size >= _MANY:
        promises.append((f"open in under 2 s ({opening['seconds']:.2f} s to the first answer)", opening["seconds"] < 2))
        promises.append((f"in under 1 GB ({opening['MB']:,.0f} MB)", opening["MB"] < 1_000))
    if ("Milvus Lite", False) in ms:
        ratio = ms["Milvus Lite", False][0] / ours
        promises.insert(1, (f"at least 20 × as fast as Milvus Lite ({ratio:.0f} ×)", ratio >= 20))
    return promises


def _timed(
    engines: dict[str, Engine], matrix: Floats, asked: Floats
) -> tuple[dict[tuple[str, bool], list[float]], dict[tuple[str, bool], float]]:
    """Blocks of queries in turn, in another order each round."""
    truth: dict[bool, Any] = {}
    for filtered in (False, True):
        truth[filtered] = nearest(matrix, asked, filtered)
    times: dict[tuple[str, bool], list[float]] = defaultdict(list)
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    dice = random.Random(0)
    tasks = [(name, f) for name, engine in engines.items() for f in (False, True) if engine.filters or not f]
    for start in range(0, len(asked), _BLOCK):
        dice.shuffle(tasks)
        for name, filtered in tasks:
            search = engines[name].search
            for vector in asked[:_WARM]:
                search(vector, filtered)
            for number in range(start, min(start + _BLOCK, len(asked))):
                begun = time.perf_counter()
                ours = search(asked[number], filtered)
                times[name, filtered].append(time.perf_counter() - begun)
                found[name, filtered].append(len(set(ours) & set(truth[filtered][number])) / K)
    return times, {key: float(np.mean(each)) for key, each in found.items()}
