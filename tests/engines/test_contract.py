"""What every engine must do; a new engine passes by being added to ENGINES."""

import sys

import numpy as np
import pytest

from vlmquant.engines import ENGINES
from vlmquant.errors import EngineError


@pytest.fixture(params=sorted(ENGINES))
def engine(request):
    entry = ENGINES[request.param]
    if not entry.installed:
        pytest.skip(f"{entry.name} is not installed")
    return entry


@pytest.fixture
def images():
    return np.random.default_rng(3).normal(size=(7, 5, 16)).astype(np.float32)


def test_a_qdq_graph_gives_the_numbers_of_integer_arithmetic(engine, linear_graph, images):
    with engine.load(linear_graph.path, 1) as session:
        np.testing.assert_allclose(session(images), linear_graph.reference(images), rtol=1e-4, atol=1e-4)


def test_an_int8_convolution_gives_the_numbers_of_integer_arithmetic(engine, convolution_graph):
    pixels = np.random.default_rng(4).normal(size=(2, 3, 16, 16)).astype(np.float32)
    with engine.load(convolution_graph.path, 1) as session:
        np.testing.assert_allclose(session(pixels), convolution_graph.reference(pixels), rtol=1e-4, atol=1e-4)


def test_attention_gives_the_numbers_of_numpy(engine, attention_graph, images):
    with engine.load(attention_graph.path, 1) as session:
        np.testing.assert_allclose(session(images), attention_graph.reference(images), rtol=1e-4, atol=1e-5)


def test_token_ids_of_any_length_go_in(engine, token_graph):
    rng = np.random.default_rng(5)
    with engine.load(token_graph.path, 1) as session:
        for shape in ((1, 3), (4, 3), (4, 9)):
            ids = rng.integers(0, 20, size=shape)
            np.testing.assert_allclose(session(ids), token_graph.reference(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_output_is_float32_with_one_row_per_input(engine, linear_graph, images, batch):
    with engine.load(linear_graph.path, 1) as session:
        output = session(images[:batch])
    assert output.shape == (batch, 5, 8)
    assert output.dtype == np.float32


def test_a_row_does_not_depend_on_its_batch(engine, linear_graph, images):
    with engine.load(linear_graph.path, 1) as session:
        together = session(images)
        for i in range(len(images)):
            np.testing.assert_allclose(session(images[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5)


def test_the_same_input_gives_the_same_bits(engine, linear_graph, images):
    with engine.load(linear_graph.path, 1) as session:
        first, second = session(images), session(images)
    with engine.load(linear_graph.path, 1) as session:
        third = session(images)
    assert first.tobytes() == second.tobytes() == third.tobytes()


def test_a_result_outlives_the_next_call_and_the_session(engine, linear_graph, images):
    session = engine.load(linear_graph.path, 1)
    result = session(images[:2])
    kept = result.copy()
    session(images[2:4])
    session.close()
    np.testing.assert_array_equal(result, kept)


def test_a_view_with_strides_is_read_in_its_own_order(engine, linear_graph, images):
    view = np.asfortranarray(images)[::-2]
    with engine.load(linear_graph.path, 1) as session:
        np.testing.assert_array_equal(session(view), session(view.copy(order="C")))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_itself_says_that_it_took_the_threads(engine, linear_graph, threads):
    with engine.load(linear_graph.path, threads) as session:
        assert session.threads == threads


def test_without_a_number_the_engine_chooses_its_threads(engine, linear_graph, images):
    with engine.load(linear_graph.path, None) as session:
        assert session.threads is None or session.threads >= 1
        assert session(images).shape == (7, 5, 8)


def test_the_session_knows_its_engine_and_input(engine, linear_graph, token_graph):
    with engine.load(linear_graph.path, 1) as session:
        assert (session.name, session.input_shape, session.input_dtype) == (engine.name, (None, 5, 16), np.float32)
    with engine.load(token_graph.path, 1) as session:
        assert (session.input_shape, session.input_dtype) == ((None, None), np.int64)


def test_a_closed_session_refuses(engine, linear_graph, images):
    session = engine.load(linear_graph.path, 1)
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session(images)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 5, 17), np.float32),
        np.zeros((2, 16), np.float32),
        np.zeros((0, 5, 16), np.float32),
        np.zeros((2, 5, 16), np.float64),
        np.zeros((2, 5, 16), np.uint8),
    ],
    ids=["width", "rank", "empty", "float64", "uint8"],
)
def test_an_input_that_does_not_fit_is_named(engine, linear_graph, wrong):
    with (
        engine.load(linear_graph.path, 1) as session,
        pytest.raises(EngineError, match=r"float32 of shape \(any, 5, 16\)"),
    ):
        session(wrong)


def test_a_missing_file_is_named(engine, tmp_path):
    with pytest.raises(EngineError, match=r"absent\.onnx is not a file"):
        engine.load(tmp_path / "absent.onnx", 1)
    with pytest.raises(EngineError, match=r"absent\.onnx is not a file"):
        engine.audit(tmp_path / "absent.onnx", np.zeros((1, 5, 16), np.float32))


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08" * 40])
def test_a_file_that_is_no_graph_is_named(engine, tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"broken\.onnx"):
        engine.load(path, 1)


def test_a_cut_off_graph_is_refused(engine, linear_graph, tmp_path):
    path = tmp_path / "cut.onnx"
    content = linear_graph.path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineError, match=r"cut\.onnx"):
        engine.load(path, 1)


def test_a_graph_that_is_no_tower_is_named(engine, misfits):
    for path in misfits:
        with pytest.raises(EngineError, match=rf"{path.name} has \d inputs"):
            engine.load(path, 1)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(engine, linear_graph, threads):
    with pytest.raises(EngineError, match="at least 1"):
        engine.load(linear_graph.path, threads)


def test_an_unknown_precision_lists_the_known_ones(engine, linear_graph):
    with pytest.raises(EngineError, match="f32"):
        engine.load(linear_graph.path, 1, "f8")


def test_float_layers_do_not_fall_to_a_lower_precision(engine, attention_graph):
    # In bfloat16, 8 bits of mantissa, the result would be off by about 1 in 256.
    values = np.random.default_rng(6).normal(size=(1, 5, 16)).astype(np.float32)
    with engine.load(attention_graph.path, 1) as session:
        error = np.abs(session(values) - attention_graph.reference(values.astype(np.float64))).max()
    assert error < 1e-5


def test_a_missing_package_comes_with_its_remedy(engine, linear_graph, monkeypatch):
    monkeypatch.setitem(sys.modules, engine.name, None)
    assert not engine.installed
    with pytest.raises(EngineError, match=f"pip install {engine.name}"):
        engine.load(linear_graph.path, 1)


def test_each_named_precision_loads_and_stays_near(engine, attention_graph):
    values = np.random.default_rng(6).normal(size=(1, 5, 16)).astype(np.float32)
    for precision in engine.precisions:
        with engine.load(attention_graph.path, 1, precision) as session:
            np.testing.assert_allclose(session(values), attention_graph.reference(values), atol=0.05)
