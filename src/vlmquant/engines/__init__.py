"""Engines run a bundle's graphs; all of them behind the same two functions, `load` and `audit`.

The packages themselves are imported when a graph is loaded, not before.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from vlmquant.engines import onnxruntime, openvino
from vlmquant.engines.audit import Coverage, Layer, combined_share
from vlmquant.engines.cpu import Cpu, this_cpu
from vlmquant.engines.graph import GraphSession
from vlmquant.engines.session import AnyArray, Arithmetic, Session
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
    "Session",
    "choose",
    "combined_share",
    "engine",
    "installed_engines",
    "load",
    "load_graph",
    "safe_arithmetic",
    "this_cpu",
]


Activations = Literal["static", "dynamic", "float"]
"""When a graph's activations become integers: by stored scales, by scales taken at run time (MatMulInteger), never."""


class Load(Protocol):
    """Loads a graph: see `engines.openvino.load`."""

    def __call__(
        self, path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
    ) -> Session:
        """Return the loaded graph."""
        ...


class LoadGraph(Protocol):
    """Loads a graph of any number of inputs and outputs: see `engines.openvino.load_graph`."""

    def __call__(
        self, path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
    ) -> GraphSession:
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
        """Whether the package can be found; it is not imported. A folder of its name without code is no package."""
        with suppress(ImportError, ValueError):
            spec = find_spec(self.name)
            return spec is not None and spec.origin is not None
        return False

    @property
    def version(self) -> str:
        """The version of what is installed, "unknown" where it does not say.

        A package may come under another name: onnxruntime-gpu holds onnxruntime.
        """
        for name in (self.name, *packages_distributions().get(self.name, ())):
            with suppress(PackageNotFoundError):
                return version(name)
        return "unknown"


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


def safe_arithmetic(name: str, activations: Activations) -> Arithmetic:
    """Return how the engine called `name` computes a graph so that no sum overflows on any CPU."""
    return "wide" if (name, activations) == ("onnxruntime", "dynamic") else "float"


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
        raise EngineError(f"no engine is installed; run: pip install {next(iter(ENGINES))}")
    preferred, because = _preference(activations, cpu)
    if preferred in installed:
        return preferred, because
    other = installed[0]
    return other, f"{preferred}, usually faster here, is not installed"


def _preference(activations: Activations, cpu: Cpu) -> tuple[str, str]:
    if activations == "dynamic":
        return "onnxruntime", "it multiplies integers with scales taken at run time; OpenVINO would compute in float"
    if activations == "float":
        return "openvino", "it reads integer weights as they are; ONNX Runtime makes a float copy of them"
    if not cpu.is_x86:
        return "onnxruntime", f"usually the fastest for stored scales on {cpu.machine}"
    if cpu.exact_dot_product is False:
        return "onnxruntime", f"OpenVINO has no fast INT8 kernels for a CPU without VNNI ({cpu.model})"
    return "openvino", f"usually the fastest for stored scales on x86 with VNNI ({cpu.model})"
