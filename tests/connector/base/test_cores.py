"""Cores as a container allows them: quotas of both versions of control groups, nested, absent and damaged."""

import os
from pathlib import Path

import pytest

from bartizan_connector.base import cores
from bartizan_connector.base.cores import available_cores, idle_cores


@pytest.fixture(autouse=True)
def _eight_by_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def _system(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V2 = {"proc/self/cgroup": "0::/pod/box\n"}
V1 = {"proc/self/cgroup": "12:memory:/pod/box\n4:cpu,cpuacct:/pod/box\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (V2, 8),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, 8),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "200000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "20000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "6400000 100000\n"}, 8),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000\n", "sys/fs/cgroup/pod/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (V2 | {"sys/fs/cgroup/cpu.max": "500000 100000\n"}, 5),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "nonsense"}, 8),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "100000 0"}, 8),
        (
            V1 | {
                "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "10000\n"}, 5),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
def test_the_tightest_quota_counts(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert available_cores(_system(tmp_path, files)) == cores


def test_affinity_counts_where_it_is_tighter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1}, raising=False)
    assert available_cores(_system(tmp_path, V2 | {"sys/fs/cgroup/pod/box/cpu.max": "400000 100000\n"})) == 1


def test_this_machine_has_at_least_one() -> None:
    assert available_cores() >= 1


def _stat(root: Path, *cores: tuple[int, int]) -> None:
    """What the system counts of each core: busy and idle ticks."""
    lines = [
        "cpu 9 9 9 9 9 0 0 0 0 0",
        *(f"cpu{n} {busy} 0 0 {idle} 0 0 0 0 0 0" for n, (busy, idle) in enumerate(cores)),
    ]
    _system(root, {"proc/stat": "".join(f"{line}\n" for line in lines) + "intr 1 2 3\n"})


@pytest.mark.parametrize(
    ("spent", "idle"),
    [
        ([(0, 100)] * 8, 8),
        ([(100, 0)] * 8, 1),
        ([(100, 0)] * 4 + [(0, 100)] * 4, 4),
        ([(20, 80)] * 2 + [(100, 0)] * 6, 1),
        ([(10, 90)] * 8, 7),
        ([(0, 0)] * 8, 8),
    ],
)
def test_idle_cores_are_those_that_nobody_keeps_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spent: list[tuple[int, int]], idle: int
) -> None:
    _stat(tmp_path, *([(1000, 5000)] * len(spent)))
    later = [(1000 + busy, 5000 + rest) for busy, rest in spent]
    monkeypatch.setattr(cores.time, "sleep", lambda seconds: _stat(tmp_path, *later))
    assert idle_cores(tmp_path) == idle


def test_no_more_cores_are_idle_than_the_quota_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _system(tmp_path, V2 | {"sys/fs/cgroup/pod/box/cpu.max": "200000 100000\n"})
    _stat(tmp_path, *([(0, 0)] * 8))
    monkeypatch.setattr(cores.time, "sleep", lambda seconds: _stat(tmp_path, *([(0, 100)] * 8)))
    assert idle_cores(tmp_path) == 2


def test_cores_of_others_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1}, raising=False)
    _stat(tmp_path, (0, 0), (0, 0), (0, 0))
    monkeypatch.setattr(cores.time, "sleep", lambda seconds: _stat(tmp_path, (0, 100), (100, 0), (0, 100)))
    assert idle_cores(tmp_path) == 1


def test_where_the_system_does_not_tell_all_are_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(cores.time, "sleep", slept.append)
    assert idle_cores(tmp_path) == 8
    assert sum(slept) == 0
