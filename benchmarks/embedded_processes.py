"""An embedded store and several processes: a reader beside one that writes, and one that opens it anew."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bartizan_connector.space.vectors import Floats
from bartizan_connector.store.embedded import EmbeddedBackend
from benchmarks.embedded_rows import SPEC, drawn, query, rows

_K = 10
_TURNS, _SECONDS = 3, 2.0
"""So often, and for so long each time, is the reader looked at, quiet and beside the writer."""


def beside_a_writer(path: Path, asked: Floats) -> dict[str, float]:
    """The p99 of a reader that asks on and on, quiet and while another process replaces rows, in turns."""
    backend = EmbeddedBackend(path)
    store = backend.open(SPEC, create=False)
    times: dict[str, list[float]] = {"quiet": [], "ingesting": []}

    def look(kind: str) -> None:
        end = time.perf_counter() + _SECONDS
        for vector in itertools.cycle(asked):
            begun = time.perf_counter()
            if begun > end:
                return
            store.search("dense", query(vector), _K)
            times[kind].append(time.perf_counter() - begun)

    look("quiet")
    times["quiet"].clear()
    for _ in range(_TURNS):
        look("quiet")
        command = [sys.executable, "-m", "benchmarks.embedded_processes", "write", str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            look("ingesting")
            writer.terminate()
    backend.close()
    p99 = {kind: float(np.percentile(each, 99)) * 1e3 for kind, each in times.items()}
    return {**{f"{kind}_p99": round(value, 3) for kind, value in p99.items()}, "ratio": p99["ingesting"] / p99["quiet"]}


def _write_on(path: Path) -> None:
    """What another process does meanwhile: 20 documents ten times a second, as a stream would bring them."""
    store = EmbeddedBackend(path).open(SPEC, create=False)
    for version in range(2, 10_000):
        (batch,) = rows(drawn(20, version, 50))
        store.upsert(batch)
        print(version, flush=True)
        time.sleep(0.1)


def opened_anew(path: Path) -> dict[str, float]:
    """What it costs a new process to open the store, to answer its first query and to hold what it needs for that."""
    command = [sys.executable, "-m", "benchmarks.embedded_processes", "open", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return dict(json.loads(told))


def _open(path: Path) -> None:
    """Beyond what Python and the libraries take."""
    import faiss  # noqa: F401  is loaded with the first search otherwise

    (asked,) = drawn(1, 3, 50)
    held, begun = _held(), time.perf_counter()
    store = EmbeddedBackend(path).open(SPEC, create=False)
    store.search("dense", query(asked), _K)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": round(seconds, 3), "MB": round(_held() - held, 1)}))


def _held() -> float:
    """Megabytes of this process now; its peak would begin with that of the process that started it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    {"write": _write_on, "open": _open}[sys.argv[1]](Path(sys.argv[2]))
