from dataclasses import dataclass

import numpy as np
import pytest

from vlmquant.engines import ENGINES, Coverage, Cpu, Layer, combined_share, onnxruntime, openvino


@dataclass
class FakeNode:
    facts: dict[str, str]

    def get_rt_info(self):
        return self.facts


@dataclass
class FakeRuntimeModel:
    nodes: list[FakeNode]

    def get_ordered_ops(self):
        return self.nodes


@pytest.fixture(params=sorted(ENGINES))
def audit(request):
    if not ENGINES[request.param].installed:
        pytest.skip(f"{request.param} is not installed")
    return ENGINES[request.param].audit


def macs_by_kind(coverage):
    return {kind: sum(layer.macs for layer in coverage.layers if layer.kernel == kind) for kind in ("int8", "float")}


def test_linear_layers_are_counted_by_hand(audit, linear_graph):
    coverage = audit(linear_graph.path, np.zeros((1, 5, 16), np.float32))
    assert macs_by_kind(coverage) == {"int8": 5 * 16 * 32, "float": 5 * 32 * 8}
    assert coverage.total_macs == 3840
    assert coverage.int8_share == pytest.approx(2 / 3)
    assert coverage.fast_int8_share in (0.0, pytest.approx(2 / 3))


def test_macs_grow_with_the_batch(audit, linear_graph):
    coverage = audit(linear_graph.path, np.zeros((3, 5, 16), np.float32))
    assert coverage.total_macs == 3 * 3840


def test_attention_products_count_as_float_layers(audit, attention_graph):
    coverage = audit(attention_graph.path, np.zeros((1, 5, 16), np.float32))
    assert [layer.macs for layer in coverage.layers] == [5 * 5 * 16, 5 * 16 * 5]
    assert coverage.int8_share == 0


def test_convolutions_are_counted_by_hand(audit, convolution_graph):
    coverage = audit(convolution_graph.path, np.zeros((1, 3, 16, 16), np.float32))
    assert [layer.macs for layer in coverage.layers] == [16 * 8 * 3 * 16, 16 * 6 * 4]
    # ONNX Runtime has an integer convolution only for an integer output, which the patch embedding has not.
    expected = {"openvino": 6144 / 6528, "onnxruntime": 0.0}
    assert coverage.int8_share == pytest.approx(expected[coverage.engine])


def test_a_graph_without_products_has_no_share(audit, token_graph):
    coverage = audit(token_graph.path, np.zeros((1, 3), np.int64))
    assert (coverage.total_macs, coverage.int8_share) == (0, 0.0)


def test_the_audit_says_where_matmul_integer_runs_in_integers(audit, dynamic_graph):
    coverage = audit(dynamic_graph.path, np.ones((1, 5, 16), np.float32))
    assert coverage.total_macs == 5 * 16 * 32
    assert coverage.int8_share == {"openvino": 0.0, "onnxruntime": 1.0}[coverage.engine]


def test_4_bit_weights_in_groups_count_as_weight_only(audit, grouped_graph):
    coverage = audit(grouped_graph.path, np.ones((1, 5, 64), np.float32))
    assert coverage.total_macs == 5 * 64 * 32
    assert (coverage.int8_share, coverage.share("weight-only")) == (0.0, 1.0)


def test_the_audit_tells_what_executed_each_layer(audit, linear_graph):
    coverage = audit(linear_graph.path, np.zeros((1, 5, 16), np.float32))
    integers, floats = sorted(coverage.layers, key=lambda layer: layer.kernel, reverse=True)
    if coverage.engine == "onnxruntime":
        assert integers.implementation in onnxruntime.INT8_MATMULS
        assert floats.implementation in onnxruntime.FLOAT_MATMULS
    else:
        assert integers.implementation.endswith("I8")
        assert floats.implementation.endswith("f32")
    assert coverage.slow_int8_kernels == (() if integers.fast else (integers.implementation,))


def executed_by_openvino(primitive, precision="u8", layer="FullyConnected", names="layer"):
    facts = {
        "layerType": layer,
        "runtimePrecision": precision,
        "primitiveType": primitive,
        "originalLayersNames": names,
    }
    return FakeNode(facts)


@pytest.mark.parametrize(
    ("primitive", "layer", "fast"),
    [
        ("jit_gemm_I8", "FullyConnected", False),  # x86 with AVX2 or SSE4.1
        ("gemm_any_I8", "MatMul", False),
        ("ref_any_I8", "FullyConnected", False),
        ("ref_I8", "Convolution", False),
        ("brgemm_avx512_I8", "FullyConnected", True),  # VNNI
        ("brgemm_avx512_amx_I8", "FullyConnected", True),
        ("brgemm_avx2_I8", "FullyConnected", True),  # AVX-VNNI
        ("jit_avx2_I8", "Convolution", True),
        ("jit_sse42_I8", "Convolution", True),
        ("brgconv_avx512_I8", "Convolution", True),
        ("jit_avx512_I8", "Subgraph", True),
        ("gemm_acl_i8", "FullyConnected", True),  # Arm
    ],
)
def test_openvinos_reference_and_emulated_integer_kernels_are_slow(primitive, layer, fast):
    kernels = openvino._kernels(FakeRuntimeModel([executed_by_openvino(primitive, layer=layer)]))
    assert kernels == {"layer": ("int8", primitive, fast)}


def test_kernels_that_multiply_no_integers_are_told_apart_whatever_their_speed():
    executed = [
        executed_by_openvino("brgemm_avx2_f32", precision="i8", names="weight-only"),
        executed_by_openvino("jit_gemm_f32", precision="f32", layer="MatMul", names="float"),
    ]
    kernels = openvino._kernels(FakeRuntimeModel(executed))
    assert {name: kernel for name, (kernel, _, _) in kernels.items()} == {
        "weight-only": "weight-only",
        "float": "float",
    }


def profiled(op):
    return {
        "name": "layer_kernel_time",
        "args": {
            "op_name": op,
            "input_type_shape": [{"uint8": [1, 5, 16]}, {"int8": [16, 32]}],
            "output_type_shape": [{"uint8": [1, 5, 32]}],
        },
    }


@pytest.mark.parametrize(
    ("machine", "features", "fast"),
    [
        ("x86_64", {"sse4_1"}, False),
        ("x86_64", {"sse4_1", "avx2"}, True),
        ("x86_64", {"sse4_1", "avx2", "avx512f", "avx512_vnni"}, True),
        ("x86_64", {"sse4_1", "avx2", "avx512f", "avx512_vnni", "amx_int8"}, True),
        ("aarch64", {"neon"}, True),
        ("riscv64", set(), False),
        ("x86_64", None, True),
    ],
)
def test_the_cpu_decides_whether_onnx_runtime_has_fast_integer_kernels(machine, features, fast):
    cpu = Cpu("A CPU", machine, None if features is None else frozenset(features))
    integers, floats = (onnxruntime._layer(profiled(op), cpu) for op in ("QLinearMatMul", "MatMul"))
    assert integers == Layer("layer", "QLinearMatMul", 5 * 16 * 32, "int8", "QLinearMatMul", fast)
    assert floats == Layer("layer", "MatMul", 5 * 16 * 32, "float", "MatMul", True)


def test_a_layer_that_openvino_names_after_its_rescaling_is_found():
    executed = [
        executed_by_openvino("undef_I8", names="queries/DequantizationMultiply,bias"),
        executed_by_openvino("undef_I8", names="keys/DequantizationMultiply"),
        executed_by_openvino("gemm_f32", precision="f32", names="keys"),
    ]
    kernels = openvino._kernels(FakeRuntimeModel(executed))
    assert (kernels["queries"][0], kernels["keys"][0]) == ("int8", "float")


FLOAT = Layer("float", "MatMul", 100, "float", "gemm_f32", True)
FAST = Layer("patches", "Convolution", 200, "int8", "jit_avx2_I8", True)
SLOW = Layer("linear", "MatMul", 700, "int8", "jit_gemm_I8", False)


def test_shares_of_graphs_combine_by_their_work():
    small, large = Coverage("openvino", (SLOW,)), Coverage("openvino", (FAST, FLOAT))
    assert combined_share([small, large]) == pytest.approx(900 / 1000)
    assert combined_share([]) == 0.0


def test_slow_integer_kernels_count_as_int8_and_not_as_fast():
    coverage = Coverage("openvino", (FLOAT, FAST, SLOW, SLOW))
    assert (coverage.int8_share, coverage.fast_int8_share) == (1600 / 1700, 200 / 1700)
    assert coverage.slow_int8_kernels == ("jit_gemm_I8",)
    assert Coverage("openvino", ()).fast_int8_share == 0.0


def test_plain_values_name_what_stayed_float_and_what_is_slow():
    assert Coverage("openvino", (FLOAT, FAST, SLOW)).to_dict() == {
        "engine": "openvino",
        "total_macs": 1000,
        "int8_share": 0.9,
        "fast_int8_share": 0.2,
        "slow_int8_kernels": ["jit_gemm_I8"],
        "slow_int8_layers": {"linear": 700},
        "weight_only_layers": {},
        "float_layers": {"float": 100},
    }
