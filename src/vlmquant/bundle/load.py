"""The graphs of a bundle as functions."""

from collections.abc import Mapping
from pathlib import Path

from vlmquant.bundle.manifest import Manifest
from vlmquant.engines import Arithmetic, load_graph
from vlmquant.engines.memory import return_freed_memory
from vlmquant.models.heads import Run


def load_graphs(
    folder: Path, manifest: Manifest, ways: Mapping[str, tuple[str, Arithmetic]], threads: int | None
) -> dict[str, Run]:
    """Load the graphs that `ways` names, each on the engine and in the arithmetic given there."""
    return {
        name: load_file(folder / manifest.components[name].file, engine, arithmetic, threads)
        for name, (engine, arithmetic) in ways.items()
    }


def load_file(path: Path, engine: str, arithmetic: Arithmetic, threads: int | None) -> Run:
    """Load one ONNX graph as a function from arrays to an array, or to a tuple of them where it has several outputs."""
    session = load_graph(path, engine, threads, arithmetic=arithmetic)
    return_freed_memory()
    return session if len(session.outputs) > 1 else lambda *arrays: session(*arrays)[0]
