import numpy as np
import pytest

from vlmquant.engines import ENGINES, Coverage, Layer, combined_share


@pytest.fixture(params=sorted(ENGINES))
def audit(request):
    if not ENGINES[request.param].installed:
        pytest.skip(f"{request.param} is not installed")
    return ENGINES[request.param].audit


def macs_by_kind(coverage):
    return {kind: sum(layer.macs for layer in coverage.layers if layer.int8 is kind) for kind in (True, False)}


def test_linear_layers_are_counted_by_hand(audit, linear_graph):
    coverage = audit(linear_graph.path, np.zeros((1, 5, 16), np.float32))
    assert macs_by_kind(coverage) == {True: 5 * 16 * 32, False: 5 * 32 * 8}
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


def test_shares_of_graphs_combine_by_their_work():
    small = Coverage("openvino", (Layer("a", "MatMul", 100, True),))
    large = Coverage("openvino", (Layer("b", "MatMul", 200, True), Layer("c", "MatMul", 100, False)))
    assert combined_share([small, large]) == pytest.approx(300 / 400)
    assert combined_share([]) == 0.0


def test_plain_values_name_what_stayed_float():
    coverage = Coverage("openvino", (Layer("a", "MatMul", 300, True), Layer("b", "MatMul", 100, False)))
    assert coverage.to_dict() == {
        "engine": "openvino",
        "total_macs": 400,
        "int8_share": 0.75,
        "float_layers": {"b": 100},
    }
