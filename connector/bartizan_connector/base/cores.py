"""How many cores this process may use: by affinity, and by the quota that a container sets; and how many are idle."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

_ROUNDED_UP = 0.25
"""A core that is idle for three quarters of the time counts as a whole one."""


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1. A quota of one and a half counts as one: a second busy thread would
    spend a quarter of each period halted, and a query with it. `root` stands for / in tests."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(allowed), *_quotas(root)])))


def idle_cores(root: Path = Path("/"), *, seconds: float = 0.25) -> int:
    """How many of the available cores nobody else keeps busy, at least 1: looked at for so long, while this process
    sleeps. Where the system does not tell (no Linux), all that are available."""
    available = available_cores(root)
    before = _ticks(root)
    time.sleep(seconds if before else 0.0)
    after = _ticks(root)
    idle = 0.0
    for core in before.keys() & after.keys():
        passed, spare = (late - early for late, early in zip(after[core], before[core], strict=True))
        idle += spare / passed if passed > 0 else 1.0
    return max(1, min(available, int(idle + _ROUNDED_UP))) if before else available


def _ticks(root: Path) -> dict[int, tuple[int, int]]:
    """Core → how long it has been there, and how long idle, in the system's ticks; of those that may be used."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found = {}
    for line in _read(root / "proc/stat").splitlines():
        name, *counts = line.split()
        number = name.removeprefix("cpu")
        if name.startswith("cpu") and number.isdigit() and int(number) in allowed and len(counts) >= 5:
            ticks = [int(count) for count in counts[:8]]
            found[int(number)] = (sum(ticks), ticks[3] + ticks[4])
    return found


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in cores, of this process' control groups and of all groups around them (Linux; elsewhere none)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            for group in _around(root / "sys/fs/cgroup", place):
                quota, _, period = _read(group / "cpu.max").partition(" ")
                yield from _cores(quota, period)
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu")):
                for group in _around(root / "sys/fs/cgroup" / name, place):
                    yield from _cores(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _around(mount: Path, place: str) -> Iterator[Path]:
    """The group's folder and those around it, up to the mount. A container often sees its own group as the mount, while
    `place` is still the host's name for it: folders that are not there hold no quota."""
    names = [name for name in place.split("/") if name not in ("", ".", "..")]
    for depth in range(len(names), -1, -1):
        yield mount.joinpath(*names[:depth])


def _cores(quota: str, period: str) -> Iterator[float]:
    """Nothing where no limit is set ("max", -1) or the file is not there."""
    if quota.strip().isdigit() and period.strip().isdigit() and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
