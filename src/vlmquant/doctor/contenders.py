"""What the doctor times: the same two matrix products in each arithmetic of each engine.

They are those of a ViT-B/32's MLP on its 50 tokens, (50, 768) @ (768, 3072) @ (3072, 768); training/doctor_graphs.py
writes the graphs.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from vlmquant.bench.contenders import Contender, Running, without_bf16
from vlmquant.bench.measure import bytes_on_disk
from vlmquant.engines import engine

Arithmetic: TypeAlias = Literal["float32", "bfloat16", "int8"]

GRAPHS = Path(__file__).resolve().parent / "graphs"
INPUT_SHAPE = (1, 50, 768)
MACS = 2 * 50 * 768 * 3072
"""Multiply-accumulates of one run."""

_FILES: dict[Arithmetic, str] = {"float32": "float.onnx", "bfloat16": "float.onnx", "int8": "int8.onnx"}

PRODUCTS: dict[str, tuple[str, Arithmetic]] = {
    "onnxruntime-float32": ("onnxruntime", "float32"),
    "onnxruntime-int8": ("onnxruntime", "int8"),
    "openvino-float32": ("openvino", "float32"),
    "openvino-bfloat16": ("openvino", "bfloat16"),
    "openvino-int8": ("openvino", "int8"),
}
"""Every contender's engine and arithmetic."""


def graph(arithmetic: Arithmetic) -> Path:
    """Return the ONNX file of this arithmetic."""
    return GRAPHS / _FILES[arithmetic]


def _builder(name: str, arithmetic: Arithmetic) -> Callable[[Path, str, int], Running]:
    def build(path: Path, component: str, threads: int) -> Running:
        # An engine that is there but cannot be imported tells its own reason here.
        importlib.import_module(name)
        session = engine(name).load(path, threads, "bf16" if arithmetic == "bfloat16" else "f32")
        if arithmetic != "int8":
            return Running(session, lambda: bytes_on_disk(path))
        return Running(session, lambda: bytes_on_disk(path), lambda inputs: engine(name).audit(path, inputs))

    return build


def _contender(name: str, arithmetic: Arithmetic) -> Contender:
    build = _builder(name, arithmetic)
    if arithmetic == "bfloat16":
        return Contender(runs_on="the doctor's graph", packages=(name,), build=build, why_not=without_bf16)
    return Contender(runs_on="the doctor's graph", packages=(name,), build=build)


CONTENDERS: dict[str, Contender] = {name: _contender(*product) for name, product in PRODUCTS.items()}
