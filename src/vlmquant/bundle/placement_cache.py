"""Placements that were found before on this machine; one small JSON file for each question."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmquant import __version__
from vlmquant.bundle.manifest import MANIFEST, file_facts
from vlmquant.engines import engine, installed_engines, this_cpu
from vlmquant.errors import VlmQuantError
from vlmquant.files import cache_folder, write_whole

if TYPE_CHECKING:
    from vlmquant.bundle.placement import Placement

# Variables with these beginnings choose OpenVINO's kernels: ONEDNN_MAX_CPU_ISA makes another CPU of this one.
KERNEL_VARIABLES = ("ONEDNN_", "DNNL_")
LARGEST_BYTES = 1 << 20
"""No file that `store` wrote is larger."""

# What could not be written, by the file that it was for: found again in each process, but not at each opening in it.
_unwritten: dict[Path, dict[str, Any]] = {}


def cache_file(folder: Path, request: Mapping[str, Any]) -> Path:
    """Return where the placements of the bundle in `folder` are kept, for this CPU and these engine versions.

    Below no folder, and so never written, for a user who has no home.
    """
    cpu = this_cpu()
    question = {
        "bundle": file_facts(folder / MANIFEST).sha256,
        "cpu": [cpu.model, cpu.machine, None if cpu.features is None else sorted(cpu.features)],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "kernels": {name: value for name, value in os.environ.items() if name.startswith(KERNEL_VARIABLES)},
        "engines": {name: engine(name).version for name in installed_engines()},
        "vlmquant": __version__,
        **request,
    }
    name = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32] + ".json"
    try:
        return (cache_folder("placements") / name).absolute()
    except VlmQuantError:
        return Path(name)


def read_stored(path: Path) -> dict[str, Any]:
    """Return the fields of each component's placement, unchecked; nothing where there is no such file or no JSON."""
    if path in _unwritten:
        return _unwritten[path]
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        if path.is_absolute() and path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            return dict(json.loads(path.read_text(encoding="utf-8"))["placements"])
    return {}


def store(path: Path, request: Mapping[str, Any], placements: "Mapping[str, Placement]") -> str | None:
    """Remember `placements`; return why that is for this process alone, once in it, or None."""
    found = {component: dataclasses.asdict(placed) for component, placed in placements.items()}
    try:
        if not path.is_absolute():
            raise OSError("this user has no home folder; set XDG_CACHE_HOME")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"request": dict(request), "placements": found}, indent=2) + "\n")
        return None
    except OSError as error:
        first = not _unwritten
        _unwritten[path] = found
        return str(error) if first else None
