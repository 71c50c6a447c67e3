"""Engines run a bundle's graphs; all of them behind the same two functions, `load` and `audit`.

The packages themselves are imported when a graph is loaded, not before.
"""

from collections.abc import Sequence
from pathlib import Path

from vlmquant.engines import onnxruntime, openvino
from vlmquant.engines.audit import Coverage, Layer, combined_share
from vlmquant.engines.cpu import Cpu, this_cpu
from vlmquant.engines.entry import Activations, Engine, Preference
from vlmquant.engines.graph import GraphSession
from vlmquant.engines.session import Arithmetic, Session
from vlmquant.errors import EngineError, unknown

__all__ = [
    "ENGINES",
    "Activations",
    "Arithmetic",
    "Coverage",
    "Cpu",
    "Engine",
    "GraphSession",
    "Layer",
    "Preference",
    "Session",
    "choose",
    "combined_share",
    "engine",
    "installed_engines",
    "load",
    "load_graph",
    "this_cpu",
]

ENGINES: dict[str, Engine] = {
    "openvino": openvino.ENGINE,
    "onnxruntime": onnxruntime.ENGINE,
}
"""By name; a new one is a file of this package, with an `ENGINE` in it, and a row here."""


def engine(name: str) -> Engine:
    """Return the engine of this name. Raises EngineError for a name that is not in `ENGINES`."""
    if name not in ENGINES:
        raise unknown(EngineError, "engine", name, ENGINES)
    return ENGINES[name]


def load(
    path: Path, name: str, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> Session:
    """Load the ONNX graph at `path` on the engine called `name`; raises EngineError as `engines.openvino.load`."""
    return engine(name).load(path, threads, precision, arithmetic)


def load_graph(
    path: Path, name: str, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> GraphSession:
    """Load a graph of several inputs and outputs on the engine called `name`; otherwise as `load`."""
    return engine(name).load_graph(path, threads, precision, arithmetic)


def installed_engines() -> tuple[str, ...]:
    """Names of the engines whose package is installed."""
    return tuple(name for name, entry in ENGINES.items() if entry.installed)


def choose(
    activations: Activations, *, cpu: Cpu | None = None, installed: Sequence[str] | None = None
) -> tuple[str, str]:
    """Return (engine name, the reason in words) for a graph on this machine, from what was measured elsewhere.

    `bundle.placement` measures instead wherever it may. Raises EngineError when no engine is installed.
    """
    cpu = this_cpu() if cpu is None else cpu
    installed = installed_engines() if installed is None else installed
    if not installed:
        raise EngineError(f"no engine is installed; run: pip install {next(iter(ENGINES.values())).package}")
    preferences = {name: entry.preference(activations, cpu) for name, entry in ENGINES.items()}
    ranked = sorted(preferences, key=lambda name: preferences[name].rank, reverse=True)
    taken = next(name for name in ranked if name in installed)
    if taken == ranked[0]:
        return taken, preferences[taken].because
    return taken, f"{ranked[0]}, usually faster here, is not installed"
