from dataclasses import dataclass

import numpy as np
import pytest

from vlmquant.engines import ENGINES, Coverage, Layer, combined_share, openvino


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


def test_a_layer_that_openvino_names_after_its_rescaling_is_found():
    facts = {"layerType": "FullyConnected", "runtimePrecision": "u8", "primitiveType": "undef_I8"}
    executed = [
        FakeNode(facts | {"originalLayersNames": "queries/DequantizationMultiply,bias"}),
        FakeNode(facts | {"originalLayersNames": "keys/DequantizationMultiply"}),
        FakeNode(facts | {"originalLayersNames": "keys", "primitiveType": "gemm_f32", "runtimePrecision": "f32"}),
    ]
    kernels = openvino._kernels(FakeRuntimeModel(executed))
    assert (kernels["queries"], kernels["keys"]) == ("int8", "float")


def test_shares_of_graphs_combine_by_their_work():
    small = Coverage("openvino", (Layer("a", "MatMul", 100, "int8"),))
    large = Coverage("openvino", (Layer("b", "MatMul", 200, "int8"), Layer("c", "MatMul", 100, "float")))
    assert combined_share([small, large]) == pytest.approx(300 / 400)
    assert combined_share([]) == 0.0


def test_plain_values_name_what_stayed_float():
    coverage = Coverage("openvino", (Layer("a", "MatMul", 300, "int8"), Layer("b", "MatMul", 100, "float")))
    assert coverage.to_dict() == {
        "engine": "openvino",
        "total_macs": 400,
        "int8_share": 0.75,
        "weight_only_layers": {},
        "float_layers": {"b": 100},
    }
