"""What a benchmark leaves behind: its numbers, and where, when and of what they were measured."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from bartizan_connector.base.console import err, out

RESULTS = Path(__file__).parent / "results"
_SOURCES = ("connector", "encoders", "training", "triton_models", "benchmarks/*.py")
_PACKAGES = (
    "bartizan-search",
    "faiss-cpu",
    "ir-measures",
    "lancedb",
    "milvus-lite",
    "numpy",
    "onnxruntime",
    "qdrant-client",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
    "tritonclient",
)

Table = Sequence[Mapping[str, str]]
"""Rows of cells by column."""


class Record:
    """One benchmark's run; written anew after each step, so that a run that is cut short leaves what it has. What
    `goes_on` adds to what it left earlier on the day, which is `before`."""

    def __init__(self, name: str, *, goes_on: bool = False) -> None:
        self._name = f"{datetime.now(UTC):%Y-%m-%d}-{name}"
        self._stem: Path | None = None
        self.before: Mapping[str, Any] = {}
        earlier = RESULTS / f"{self._name}.json"
        if goes_on and earlier.exists() and earlier.stat().st_size:
            self._stem = earlier.with_suffix("")
            self.before = json.loads(earlier.read_text(encoding="utf-8"))["results"]
        self._facts = {"benchmark": name, **_facts()}

    def write(self, results: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
        """Save the numbers as JSON, and the tables (by title) for people."""
        stem = self._stem = self._stem or _free(self._name)
        load = [round(value, 2) for value in os.getloadavg()]
        facts = self._facts | {"ended": _now(), "load_at_end": load}
        text = json.dumps(facts | {"results": results}, indent=1, ensure_ascii=False)
        stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        machine = facts["machine"]
        head = (
            f"# {facts['benchmark']}, {facts['began'][:10]}\n\n"
            f"`{facts['command']}` on {machine['cores']} × {machine['cpu']}, {machine['memory_gib']} GiB, "
            f"{machine['system']}; load {facts['load_at_begin'][0]} at the start, {load[0]} at the end; "
            f"commit {facts['commit']}; "
            + ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
        )
        body = "".join(f"\n\n## {title}\n\n{_markdown(rows)}" for title, rows in tables.items() if rows)
        stem.with_suffix(".md").write_text(head + body + "\n", encoding="utf-8")

    def attach(self, suffix: str, text: str) -> None:
        """Lay a file beside the tables, such as a plot."""
        assert self._stem, "a file goes with numbers that were written"
        self._stem.with_suffix(suffix).write_text(text, encoding="utf-8")

    def show(self) -> None:
        """Print the tables, and say where they were saved."""
        assert self._stem, "there are tables once something was written"
        out.print(self._stem.with_suffix(".md").read_text(encoding="utf-8"), markup=False)
        err.print(f"written to {self._stem}.json and .md", markup=False)


def _free(name: str) -> Path:
    """A stem that no run has: a second one of the day gets a number. The file is there from now on, so that two runs at
    once have a name each."""
    RESULTS.mkdir(exist_ok=True)
    for number in count(1):
        stem = RESULTS / (name if number == 1 else f"{name}-run{number}")
        with suppress(FileExistsError):
            stem.with_suffix(".json").open("x").close()
            return stem
    raise AssertionError("numbers have no end")


def _facts() -> dict[str, Any]:
    return {
        "began": _now(),
        "command": shlex.join(["python", "-m", _program(), *sys.argv[1:]]),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "load_at_begin": [round(value, 2) for value in os.getloadavg()],
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _program() -> str:
    """A soak among the tests, or the benchmarks."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.parent if spec is not None and spec.name.startswith("tests.") else "benchmarks"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


def _commit() -> str:
    """The commit that was measured; `+` when the sources differed from it."""
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", *_SOURCES], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _markdown(rows: Table) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
