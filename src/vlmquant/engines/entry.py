"""What an entry of `ENGINES` holds: everything that the rest of the program knows of an engine."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from vlmquant.engines.audit import Coverage
from vlmquant.engines.cpu import Cpu
from vlmquant.engines.graph import GraphSession
from vlmquant.engines.session import AnyArray, Arithmetic, Session

Activations = Literal["static", "dynamic", "float"]
"""When a graph's activations become integers: by stored scales, by scales taken at run time (MatMulInteger), never."""


@dataclass(frozen=True)
class Preference:
    """How an engine usually does with a kind of graph on a kind of CPU, from what was measured elsewhere.

    Of all engines the one of the highest `rank` is taken; 1 is that of an engine which runs the graph as well as any
    other does. `because` says why, in words.
    """

    rank: int
    because: str


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
    """What runs a graph.

    `name` is what a user types and `title` how its makers write it; `package` is what Python imports. Float layers
    compute in one of the `precisions`; `lacks` returns why this CPU cannot compute in one of them, None where it can.
    `preference` says when "auto" should take it, and `safe_arithmetic` how it computes so that no sum overflows on any
    CPU.
    """

    name: str
    title: str
    package: str
    precisions: tuple[str, ...]
    load: Load
    load_graph: LoadGraph
    audit: Audit
    preference: Callable[[Activations, Cpu], Preference]
    safe_arithmetic: Callable[[Activations], Arithmetic]
    lacks: Callable[[str], str | None]

    @property
    def installed(self) -> bool:
        """Whether the package can be found; it is not imported. A folder of its name without code is not a package."""
        with suppress(ImportError, ValueError):
            spec = find_spec(self.package)
            return spec is not None and spec.origin is not None
        return False

    @property
    def version(self) -> str:
        """The version of what is installed, "unknown" where it does not say.

        A package may come under another name: onnxruntime-gpu holds onnxruntime.
        """
        for name in (self.package, *packages_distributions().get(self.package, ())):
            with suppress(PackageNotFoundError):
                return version(name)
        return "unknown"
