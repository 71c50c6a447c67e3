"""The doctor's graphs: what the script writes, what they compute, and that engines compute it in integers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vlmquant.doctor.contenders import GRAPHS, INPUT_SHAPE, MACS, PRODUCTS, graph
from vlmquant.engines import engine

TRAINING = Path(__file__).resolve().parents[2] / "training"
INPUTS = np.random.default_rng(0).standard_normal(INPUT_SHAPE, dtype=np.float32)
STEP, ZERO = 2.0**-5, 128
RUNNABLE = [product for product in PRODUCTS.values() if product[1] != "bfloat16"]


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("onnx")
    specification = importlib.util.spec_from_file_location("doctor_graphs", TRAINING / "doctor_graphs.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def integers(script, product: int) -> NDArray[np.float64]:
    rows, columns = script.WIDTHS[product : product + 2]
    return np.tile(script.square(product), (rows // script.SIDE, columns // script.SIDE)).astype(np.float64)


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.clip(np.rint(values / STEP) + ZERO, 0, 255) - ZERO) * STEP


def test_the_graphs_are_what_the_script_writes(script, tmp_path: Path) -> None:
    script.write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in GRAPHS.iterdir()}
    assert {graph(arithmetic).name for _, arithmetic in PRODUCTS.values()} == set(written)
    assert max(map(len, written.values())) < 3000


def test_no_sum_of_two_products_can_overflow_16_bits(script) -> None:
    largest = max(int(np.abs(script.square(product).astype(int)).max()) for product in (0, 1))
    assert 2 * 255 * largest < 2**15
    assert len({script.square(product).tobytes() for product in (0, 1)}) == 2


@pytest.mark.parametrize(("name", "arithmetic"), RUNNABLE)
def test_every_engine_computes_what_numpy_does(script, name: str, arithmetic: str) -> None:
    first, second = (integers(script, product) * step for product, step in enumerate(script.WEIGHT_STEPS))
    result = engine(name).load(graph(arithmetic), 1)(INPUTS)
    values = INPUTS.astype(np.float64)
    if arithmetic == "int8":
        np.testing.assert_allclose(result, rounded(rounded(values) @ first) @ second, rtol=0, atol=1e-6)
    else:
        np.testing.assert_allclose(result, values @ first @ second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "arithmetic"), RUNNABLE)
def test_engines_multiply_integers_where_they_should(name: str, arithmetic: str) -> None:
    coverage = engine(name).audit(graph(arithmetic), INPUTS)
    assert coverage.total_macs == MACS
    assert coverage.int8_share == (1.0 if arithmetic == "int8" else 0.0)
    assert len(coverage.layers) == 2


def test_the_repeated_weights_are_made_while_the_graph_loads(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    for name in ("float.onnx", "int8.onnx"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / name)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(GRAPHS / name), options, providers=["CPUExecutionProvider"])
        operators = [node.op_type for node in onnx.load(tmp_path / name).graph.node]
        assert "Tile" not in operators
        assert "DequantizeLinear" not in operators
