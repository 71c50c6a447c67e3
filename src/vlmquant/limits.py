"""How many cores and how much memory this process may really use: the machine's, and the limits of its container."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmquant.errors import EngineError

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
UNIFIED = ""
"""The name under which `cgroup_paths` gives the group of cgroup v2."""

MOST_THREADS_PER_CPU = 4
FEWEST_ALLOWED = 64
"""So many threads may be asked for on any machine: a bound against slips, not advice."""

# Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Numbers of cores.

    `physical` (None: the system does not say) and `logical` are the machine's, `allowed` the logical ones that this
    process is bound to, `usable` the physical ones among them. `cpu_quota_cores` is the CPU time that the cgroup
    grants, in cores; None where there is no limit.
    """

    physical: int | None
    logical: int
    allowed: int
    usable: int
    cpu_quota_cores: float | None

    @property
    def threads(self) -> int:
        """How many threads to compute with: one per usable core, as far as the quota reaches; at least 1."""
        quota = math.inf if self.cpu_quota_cores is None else self.cpu_quota_cores
        return max(1, math.floor(min(self.usable, quota)))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The machine's memory and what of it is free, and the cgroup's limit (None: no limit), in bytes."""

    total_bytes: int
    available_bytes: int
    memory_limit_bytes: int | None


def available_cores() -> int:
    """Return how many threads to compute with: one per physical core that this process may use, within its quota."""
    return these_cores().threads


def check_threads(threads: int) -> int:
    """Return `threads`. Raises EngineError for a number that no machine has use for."""
    logical = os.cpu_count() or 1
    most = max(FEWEST_ALLOWED, MOST_THREADS_PER_CPU * logical)
    if not 1 <= threads <= most:
        raise EngineError(
            f"threads must be at least 1 and at most {most} on this machine of {logical} logical CPUs, got {threads}"
        )
    return threads


def these_cores(root: Path = CGROUPS, own: Path = OWN_GROUPS) -> Cores:
    """Count the cores of this machine and those of this process."""
    import psutil

    logical = psutil.cpu_count(logical=True) or 1
    process = psutil.Process()
    return Cores(
        physical=psutil.cpu_count(logical=False),
        logical=logical,
        allowed=len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else logical,
        usable=_usable_cores(),
        cpu_quota_cores=cpu_quota_cores(_own_groups(own), root),
    )


def _usable_cores() -> int:
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def this_memory(root: Path = CGROUPS, own: Path = OWN_GROUPS) -> Memory:
    """Read the memory of this machine and the limit of this process."""
    import psutil

    found = psutil.virtual_memory()
    return Memory(
        total_bytes=int(found.total),
        available_bytes=int(found.available),
        memory_limit_bytes=memory_limit_bytes(_own_groups(own), root),
    )


def cgroup_paths(text: str) -> dict[str, str]:
    """Read `/proc/self/cgroup`: the path of this process's group for each controller, and for `UNIFIED`."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number.strip().isdigit() and path.startswith("/"):
            paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def cpu_quota_cores(groups: Mapping[str, str], root: Path) -> float | None:
    """Return the least CPU quota of the groups (see `cgroup_paths`) and all above them, in cores; None without one."""
    limits = [parse_cpu_max(text) for text in _texts(groups, root, UNIFIED, "cpu.max")]
    quotas = _texts(groups, root, "cpu", "cpu.cfs_quota_us")
    periods = _texts(groups, root, "cpu", "cpu.cfs_period_us")
    limits += [parse_cpu_max(f"{quota} {period}") for quota, period in zip(quotas, periods, strict=False)]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_limit_bytes(groups: Mapping[str, str], root: Path) -> int | None:
    """Return the least memory limit of the groups (see `cgroup_paths`) and all above them; None without one."""
    texts = [
        *_texts(groups, root, UNIFIED, "memory.max"),
        *_texts(groups, root, "memory", "memory.limit_in_bytes"),
    ]
    return min((limit for text in texts if (limit := parse_memory_limit(text)) is not None), default=None)


def parse_cpu_max(text: str) -> float | None:
    """Read "quota period", both in microseconds, as cores; None for "max", -1 or anything that is not a quota."""
    quota, period = (_whole(word) for word in (*text.split(), "", "")[:2])
    return quota / period if quota and period and quota > 0 and period > 0 else None


def parse_memory_limit(text: str) -> int | None:
    """Read a limit in bytes; None for "max", for version 1's largest number and for anything that is not a limit."""
    limit = _whole(text.strip())
    return limit if limit is not None and 0 < limit < _NO_LIMIT_BYTES else None


def _whole(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None


def _own_groups(own: Path) -> dict[str, str]:
    try:
        return cgroup_paths(own.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def _texts(groups: Mapping[str, str], root: Path, controller: str, name: str) -> Iterator[str]:
    """Yield what stands in the file `name` of the controller's group and of each group above it.

    A container sees its own group at the root, while the path is sometimes the host's: then only the root is there.
    """
    if controller not in groups:
        return
    # Beside version 1, version 2 is mounted in a folder of its own.
    tops = (root, root / "unified") if controller == UNIFIED else (root / controller,)
    path = Path(groups[controller].lstrip("/"))
    for top in tops:
        for group in (path, *path.parents):
            try:
                yield (top / group / name).read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue
