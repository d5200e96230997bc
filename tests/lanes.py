"""Runs the lanes of the tests that are named, or every one that can run here, and says which could not and why.

In CI (CI=true) every lane but `gpu` must run: one that cannot is a failure.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NOT_DEFAULT = ("server", "data", "packaging", "gpu")


def _always() -> str | None:
    return None


def _no_milvus() -> str | None:
    return None if find_spec("milvus") else "the Milvus server package has no build for this platform"


def _no_data() -> str | None:
    folder = Path(os.environ.get("BARTIZAN_DATA", ROOT / "../shared/data")).resolve()
    return (
        None if folder.is_dir() else f"no judged collections at {folder}; set BARTIZAN_DATA to a folder of BEIR folders"
    )


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


@dataclass(frozen=True)
class Lane:
    """A named set of checks, and why it cannot run, if so."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    obstacle: Callable[[], str | None] = _always


def _pytest(marks: str, *options: str) -> tuple[tuple[str, ...], ...]:
    return ((str(BIN / "pytest"), "-q", *options, "-m", marks),)


def _marked(name: str, *options: str) -> tuple[tuple[str, ...], ...]:
    """The tests of one mark; only the files in which it stands are opened, for to open them all takes ten seconds."""
    files = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if f"mark.{name}" in path.read_text("utf-8"))
    return _pytest(name, *options, *(str(path.relative_to(ROOT)) for path in files))


def _at_a_time(processes: int) -> tuple[str, ...]:
    """Each file in one process, so that what its tests share is made once and none of them meets another; files in
    their own order, since by the number of tests the few long ones would come last."""
    return ("-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder")


BUSY, WAITING = _at_a_time(2), _at_a_time(4)
"""For two processors: tests that compute, and tests that mostly wait for what servers do."""

LANES = (
    Lane(
        "lint",
        (
            (str(BIN / "ruff"), "format", "--check", "."),
            (str(BIN / "ruff"), "check", "."),
            (str(BIN / "mypy"),),
            (str(BIN / "lint-imports"), "--no-cache"),
        ),
    ),
    Lane("default", _pytest(" and ".join(f"not {name}" for name in NOT_DEFAULT), *BUSY)),
    Lane("server", _marked("server", *WAITING), _no_milvus),
    Lane("data", _marked("data", *BUSY), _no_data),
    Lane("packaging", _marked("packaging", *BUSY)),
    Lane("gpu", _marked("gpu"), _no_gpu),
)


def _keeping_bytecode() -> dict[str, str]:
    """What is compiled once, rewritten tests above all, is there for the next process and the next lane."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main(names: Sequence[str]) -> int:
    """Run the lanes; 0 when all that had to run passed."""
    unknown = set(names) - {lane.name for lane in LANES}
    if unknown:
        print(f"no lane {', '.join(sorted(unknown))}; there are {', '.join(lane.name for lane in LANES)}")
        return 2
    in_ci = os.environ.get("CI") == "true"
    summary, failed = [], False
    for lane in LANES:
        if names and lane.name not in names:
            continue
        begun = time.monotonic()
        reason = lane.obstacle()
        if reason:
            must = in_ci and lane.name != "gpu"
            failed |= must
            summary.append(f"{lane.name:<10} {'MUST RUN HERE, BUT CANNOT' if must else 'not run'}: {reason}")
            continue
        print(f"\n== lane {lane.name}", flush=True)
        codes = [
            subprocess.run(command, cwd=ROOT, env=_keeping_bytecode(), check=False).returncode
            for command in lane.commands
        ]
        failed |= any(codes)
        result = "FAILED" if any(codes) else "passed"
        summary.append(f"{lane.name:<10} {result} in {time.monotonic() - begun:.0f} s")
    print("\n== lanes\n" + "\n".join(summary), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
