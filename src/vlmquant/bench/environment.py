"""On what machine, with which software and how busy a bench ran."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from vlmquant.engines import ENGINES, this_cpu
from vlmquant.limits import available_cores

PACKAGES = ("vlmquant", "numpy", *sorted(engine.package for engine in ENGINES.values()), "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine at the start of a bench.

    `cpu_features` are names of `engines.cpu.INSTRUCTION_SETS`, or None when the system does not say. `cores` are
    those this process may use, within its quota of CPU time. `load_average` is over 1, 5 and 15 minutes, None where
    there is no such thing.
    `packages` maps a distribution to its version, or None when it is not installed.
    """

    time_utc: str
    cpu_model: str
    cpu_features: tuple[str, ...] | None
    cores: int
    memory_bytes: int
    system: str
    python: str
    packages: Mapping[str, str | None]
    load_average: tuple[float, ...] | None


def this_environment() -> Environment:
    """Describe the machine now; no package in `PACKAGES` is imported."""
    import psutil

    cpu = this_cpu()
    return Environment(
        time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu_model=cpu.model,
        cpu_features=None if cpu.features is None else tuple(sorted(cpu.features)),
        cores=available_cores(),
        memory_bytes=int(psutil.virtual_memory().total),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        load_average=tuple(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
