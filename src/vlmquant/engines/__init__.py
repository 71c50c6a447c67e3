"""Engines run a bundle's graphs; all of them behind the same two functions, `load` and `audit`.

The packages themselves are imported when a graph is loaded, not before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from vlmquant.engines import onnxruntime, openvino
from vlmquant.engines.audit import Coverage, Layer, combined_share
from vlmquant.engines.cpu import Cpu, check_instruction_set, this_cpu
from vlmquant.engines.graph import GraphSession
from vlmquant.engines.session import AnyArray, Session
from vlmquant.errors import EngineError, unknown

__all__ = [
    "ENGINES",
    "Coverage",
    "Cpu",
    "Engine",
    "GraphSession",
    "Layer",
    "Session",
    "check_instruction_set",
    "choose",
    "combined_share",
    "engine",
    "installed_engines",
    "load",
    "load_graph",
    "this_cpu",
]


class Load(Protocol):
    """Loads a graph: see `engines.openvino.load`."""

    def __call__(self, path: Path, threads: int | None, precision: str = "f32") -> Session:
        """Return the loaded graph."""
        ...


class LoadGraph(Protocol):
    """Loads a graph of any number of inputs and outputs: see `engines.openvino.load_graph`."""

    def __call__(self, path: Path, threads: int | None, precision: str = "f32") -> GraphSession:
        """Return the loaded graph."""
        ...


class Audit(Protocol):
    """Says which multiply-accumulates ran in INT8 kernels: see `engines.openvino.audit`."""

    def __call__(self, path: Path, *examples: AnyArray) -> Coverage:
        """Return the layers that ran and how."""
        ...


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs a graph: `name` (also its Python package), the `precisions` of its float layers, and how."""

    name: str
    precisions: tuple[str, ...]
    load: Load
    load_graph: LoadGraph
    audit: Audit

    @property
    def installed(self) -> bool:
        """Whether the package can be found; it is not imported."""
        return find_spec(self.name) is not None


ENGINES: dict[str, Engine] = {
    module.NAME: Engine(
        name=module.NAME,
        precisions=module.PRECISIONS,
        load=module.load,
        load_graph=module.load_graph,
        audit=module.audit,
    )
    for module in (openvino, onnxruntime)
}


def engine(name: str) -> Engine:
    """Return the engine of this name. Raises EngineError for a name that is not in `ENGINES`."""
    if name not in ENGINES:
        raise unknown(EngineError, "engine", name, ENGINES)
    return ENGINES[name]


def load(path: Path, name: str, threads: int | None, precision: str = "f32") -> Session:
    """Load the ONNX graph at `path` on the engine called `name`; raises EngineError as `engines.openvino.load`."""
    return engine(name).load(path, threads, precision)


def load_graph(path: Path, name: str, threads: int | None, precision: str = "f32") -> GraphSession:
    """Load a graph of several inputs and outputs on the engine called `name`; else as `load`."""
    return engine(name).load_graph(path, threads, precision)


def installed_engines() -> tuple[str, ...]:
    """Names of the engines whose package is installed."""
    return tuple(name for name, entry in ENGINES.items() if entry.installed)


def choose(
    required: Sequence[str],
    *,
    dynamic: bool,
    cpu: Cpu | None = None,
    installed: Sequence[str] | None = None,
) -> tuple[str, str]:
    """Return (engine name, the reason in words) for a bundle on this machine.

    `required` names the instruction sets of which the CPU must have one; `dynamic` says that the graphs quantize
    activations at run time (MatMulInteger) instead of by stored scales. Raises EngineError when the CPU lacks all of
    `required` or no engine is installed.
    """
    cpu = this_cpu() if cpu is None else cpu
    installed = installed_engines() if installed is None else installed
    check_instruction_set(required, cpu)
    if not installed:
        raise EngineError(f"no engine is installed; run: pip install {next(iter(ENGINES))}")
    preferred, because = _preference(dynamic, cpu)
    if preferred in installed:
        return preferred, because
    other = installed[0]
    return other, f"{preferred}, usually faster here, is not installed"


def _preference(dynamic: bool, cpu: Cpu) -> tuple[str, str]:
    if dynamic:
        return "onnxruntime", "it multiplies integers with scales taken at run time; OpenVINO would compute in float"
    if cpu.is_x86:
        return "openvino", f"fastest for stored scales on x86 ({cpu.model})"
    return "onnxruntime", f"fastest for stored scales on {cpu.machine}"
