"""Cores as a container allows them: quotas of both versions of control groups, nested, absent and damaged."""

import os
from pathlib import Path

import pytest

from bartizan_connector.base.cores import available_cores


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
