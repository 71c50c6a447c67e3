"""What the doctor times: the same two matrix products in each arithmetic of each engine.

They are those of a ViT-B/32's MLP on its 50 tokens, (50, 768) @ (768, 3072) @ (3072, 768); training/doctor_graphs.py
writes the graphs.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.measure import bytes_on_disk
from vlmquant.engines import ENGINES

Arithmetic: TypeAlias = Literal["float32", "bfloat16", "int8"]

GRAPHS = Path(__file__).resolve().parent / "graphs"
INPUT_SHAPE = (1, 50, 768)
MACS = 2 * 50 * 768 * 3072
"""Multiply-accumulates of one run."""

_FILES: dict[Arithmetic, str] = {"float32": "float.onnx", "bfloat16": "float.onnx", "int8": "int8.onnx"}

_PRECISIONS: dict[Arithmetic, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What an engine is asked to compute the float layers in."""

PRODUCTS: dict[str, tuple[str, Arithmetic]] = {
    f"{name}-{arithmetic}": (name, arithmetic)
    for name in sorted(ENGINES)
    for arithmetic, precision in _PRECISIONS.items()
    if precision in ENGINES[name].precisions
}
"""Every contender's engine and arithmetic."""


def graph(arithmetic: Arithmetic) -> Path:
    """Return the ONNX file of this arithmetic."""
    return GRAPHS / _FILES[arithmetic]


def _builder(name: str, arithmetic: Arithmetic) -> Callable[[Path, str, int], Running]:
    def build(path: Path, component: str, threads: int) -> Running:
        # An engine that is there but cannot be imported tells its own reason here.
        importlib.import_module(ENGINES[name].package)
        session = ENGINES[name].load(path, threads, _PRECISIONS[arithmetic])
        if arithmetic != "int8":
            return Running(session, lambda: bytes_on_disk(path))
        return Running(session, lambda: bytes_on_disk(path), lambda inputs: ENGINES[name].audit(path, inputs))

    return build


def _contender(name: str, arithmetic: Arithmetic) -> Contender:
    return Contender(
        runs_on="the doctor's graph",
        packages=(ENGINES[name].package,),
        build=_builder(name, arithmetic),
        why_not=lambda: ENGINES[name].lacks(_PRECISIONS[arithmetic]),
    )


CONTENDERS: dict[str, Contender] = {name: _contender(*product) for name, product in PRODUCTS.items()}
