"""Limits of containers, from what the kernel writes."""

from pathlib import Path

import pytest

from vlmquant.limits import (
    Cores,
    cgroup_paths,
    cpu_quota_cores,
    memory_limit_bytes,
    parse_cpu_max,
    parse_memory_limit,
    these_cores,
    this_memory,
)

VERSION_2 = "0::/system.slice/job.service\n"
VERSION_1 = """12:cpu,cpuacct:/docker/0123abcd
11:name=systemd:/docker/0123abcd
4:memory:/docker/0123abcd
0::/
"""
NO_LIMIT = "9223372036854771712\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cores(*, usable: int, quota: float | None) -> Cores:
    return Cores(physical=usable, logical=2 * usable, allowed=usable, usable=usable, cpu_quota_cores=quota)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("150000 100000\n", 1.5),
        ("400000 100000", 4.0),
        ("-1 100000", None),
        ("-1\n 100000\n", None),
        ("50000 100000", 0.5),
        ("100000", None),
        ("100000 0", None),
        ("", None),
        ("lots of it", None),
    ],
)
def test_a_quota_is_time_over_period(text: str, expected: float | None) -> None:
    assert parse_cpu_max(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max\n", None), ("536870912\n", 536870912), (NO_LIMIT, None), ("0", None), ("-1", None), ("", None)],
)
def test_a_memory_limit_is_a_number_that_limits(text: str, expected: int | None) -> None:
    assert parse_memory_limit(text) == expected


def test_groups_are_read_for_each_controller() -> None:
    assert cgroup_paths(VERSION_2) == {"": "/system.slice/job.service"}
    assert cgroup_paths(VERSION_1) == {
        "cpu": "/docker/0123abcd",
        "cpuacct": "/docker/0123abcd",
        "name=systemd": "/docker/0123abcd",
        "memory": "/docker/0123abcd",
        "": "/",
    }
    assert cgroup_paths("nonsense\n::\n") == {}


def test_the_tightest_group_of_version_2_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "system.slice/cpu.max": "150000 100000",
            "system.slice/memory.max": "max",
            "system.slice/job.service/cpu.max": "400000 100000",
            "system.slice/job.service/memory.max": "1073741824",
        },
    )
    groups = cgroup_paths(VERSION_2)
    assert cpu_quota_cores(groups, root) == 1.5
    assert memory_limit_bytes(groups, root) == 2**30


def test_a_container_of_version_1_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "cpu/cpu.cfs_quota_us": "200000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "2147483648\n",
        },
    )
    groups = cgroup_paths(VERSION_1)
    assert cpu_quota_cores(groups, root) == 2.0
    assert memory_limit_bytes(groups, root) == 2**31


def test_without_limits_there_is_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "cpu/docker/0123abcd/cpu.cfs_quota_us": "-1\n",
            "cpu/docker/0123abcd/cpu.cfs_period_us": "100000\n",
            "memory/docker/0123abcd/memory.limit_in_bytes": NO_LIMIT,
        },
    )
    groups = cgroup_paths(VERSION_1)
    assert cpu_quota_cores(groups, root) is None
    assert memory_limit_bytes(groups, root) is None
    assert cpu_quota_cores({}, tmp_path / "absent") is None
    assert memory_limit_bytes({"memory": "/"}, tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("usable", "quota", "threads"), [(8, None, 8), (8, 1.5, 1), (8, 2.0, 2), (2, 16.0, 2), (4, 0.5, 1), (1, None, 1)]
)
def test_threads_fit_the_cores_and_the_quota(usable: int, quota: float | None, threads: int) -> None:
    assert cores(usable=usable, quota=quota).threads == threads


def test_this_machine_is_counted_also_without_groups(tmp_path: Path) -> None:
    found = these_cores(tmp_path, tmp_path / "absent")
    assert found.cpu_quota_cores is None
    assert 1 <= found.usable <= found.allowed <= found.logical
    memory = this_memory(tmp_path, tmp_path / "absent")
    assert memory.memory_limit_bytes is None
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_this_process_reads_its_own_group(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/job\n")
    root = tree(tmp_path / "root", {"job/cpu.max": "50000 100000", "job/memory.max": "1048576"})
    assert these_cores(root, own).cpu_quota_cores == 0.5
    assert this_memory(root, own).memory_limit_bytes == 2**20
