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


def cache_file(folder: Path, request: Mapping[str, Any]) -> Path | None:
    """Return where the placements of the bundle in `folder` are kept, for this CPU and these engine versions.

    None for a user without a home, who finds them again each time.
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
    key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    with suppress(VlmQuantError):
        return cache_folder("placements") / f"{key[:32]}.json"
    return None


def read_stored(path: Path | None) -> dict[str, dict[str, Any]]:
    """Return the fields of each component's placement; nothing where there is no such file or it is damaged."""
    if path is None:
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["placements"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def store(path: Path | None, request: Mapping[str, Any], placements: "Mapping[str, Placement]") -> None:
    """Remember `placements`; where the folder cannot be written they are found again the next time."""
    if path is None:
        return
    content = {
        "request": dict(request),
        "placements": {component: dataclasses.asdict(placed) for component, placed in placements.items()},
    }
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=2) + "\n")
