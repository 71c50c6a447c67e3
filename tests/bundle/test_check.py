"""A bundle from a stranger: what is not listed, not its own or not of a model's size is refused before it is opened."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmquant.bundle import open_bundle, verify
from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.graph_check import check_graph
from vlmquant.bundle.manifest import MANIFEST, Manifest, file_facts
from vlmquant.bundle.probes import PROBES, Probes
from vlmquant.errors import BundleError
from vlmquant.models.heads import DualEncoderHead

FIXTURE = Path(__file__).with_name("fixtures") / "schema-2-clip"
HEAD = DualEncoderHead(logit_scale=1.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "bundle"))


def list_again(folder: Path) -> None:
    """Make the manifest of `folder` list its files as they are now."""
    values = json.loads((folder / MANIFEST).read_text())
    values["files"] = {
        path.name: {"sha256": file_facts(path).sha256, "bytes": path.stat().st_size}
        for path in folder.iterdir()
        if path.name in values["files"]
    }
    (folder / MANIFEST).write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["config.json", "special_tokens_map.json", "w.bin", "vocab.json"])
def test_a_file_that_is_not_listed_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_text('{"text_config": {"max_position_embeddings": 4}}')
    for use in (verify, open_bundle):
        with pytest.raises(BundleError, match=f"{name} in bundle .* does not list it"):
            use(bundle)


def test_what_a_file_manager_leaves_does_no_harm(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"x")
    assert checked_bundle(bundle) == Manifest.read(FIXTURE)


def test_a_flipped_byte_is_named(bundle: Path) -> None:
    content = bytearray((bundle / "text.onnx").read_bytes())
    content[100] ^= 1
    (bundle / "text.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"text\.onnx .* altered"):
        checked_bundle(bundle)
    (bundle / "text.onnx").write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"text\.onnx .* altered"):
        checked_bundle(bundle)


def test_a_missing_file_and_a_link_are_named(bundle: Path, tmp_path: Path) -> None:
    (bundle / "image.onnx").rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"image\.onnx is missing"):
        checked_bundle(bundle)
    (bundle / "image.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="symbolic link"):
        checked_bundle(bundle)


def test_weights_beside_a_graph_are_read_only_where_they_are_listed(bundle: Path) -> None:
    model = onnx.load(bundle / "image.onnx")
    onnx.save(model, bundle / "image.onnx", save_as_external_data=True, location="w.bin", size_threshold=1024)
    list_again(bundle)
    with pytest.raises(BundleError, match=r"w\.bin"):
        checked_bundle(bundle)
    with pytest.raises(BundleError, match=r"keeps weights in 'w\.bin'"):
        check_graph(bundle / "image.onnx")
    values = json.loads((bundle / MANIFEST).read_text())
    values["files"]["w.bin"] = {}
    (bundle / MANIFEST).write_text(json.dumps(values))
    list_again(bundle)
    assert len(verify(bundle).rows) == 4


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "image.onnx", ""])
def test_weights_elsewhere_are_refused(bundle: Path, location: str) -> None:
    model = onnx.load(bundle / "image.onnx")
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    onnx.external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    (bundle / "image.onnx").write_bytes(model.SerializeToString())
    list_again(bundle)
    with pytest.raises(BundleError, match="keeps weights in"):
        checked_bundle(bundle)


def test_image_settings_of_no_model_are_refused(bundle: Path) -> None:
    settings = json.loads((bundle / "preprocessor_config.json").read_text())
    for wrong in ({"crop_size": 1 << 20}, {"size": "large"}, {"image_mean": [1, 2, {}]}):
        (bundle / "preprocessor_config.json").write_text(json.dumps({**settings, **wrong}))
        list_again(bundle)
        with pytest.raises(BundleError, match="image settings"):
            checked_bundle(bundle)


Nodes = list[Any]


def saved(path: Path, *nodes: Any, initializers: Nodes = (), inputs: tuple[Any, ...] = (1, 3), **model: Any) -> Path:  # type: ignore[assignment]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, **model), path)
    return path


def body() -> Any:
    """Return a graph that a Loop repeats."""
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    turn = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    out = helper.make_tensor_value_info("o", TensorProto.BOOL, [])
    return helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "body", [turn, flag], [out])


def constant(values: Any, name: str = "k") -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


LYING = helper.make_tensor("k", TensorProto.FLOAT, [1], [0.0])
LYING.dims[:] = [1 << 20, 1 << 20]
SPARSE = helper.make_sparse_tensor(constant(np.ones(1, np.float32), "v"), constant(np.array([1])), [1 << 20])

HARMFUL: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "loop": ("graph inside", lambda path: saved(path, helper.make_node("Loop", ["n", ""], ["y"], body=body()))),
    "if": (
        "graph inside",
        lambda path: saved(path, helper.make_node("Identity", ["x"], ["y"], then_branch=body())),
    ),
    "another domain": (
        "com.microsoft.Gelu",
        lambda path: saved(path, helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")),
    ),
    "random": ("RandomNormal", lambda path: saved(path, helper.make_node("RandomNormal", [], ["y"], shape=[1 << 15]))),
    "function": (
        "functions",
        lambda path: saved(
            path,
            helper.make_node("Abs", ["x"], ["y"]),
            functions=[
                helper.make_function("", "Abs", ["a"], ["b"], [], [helper.make_opsetid("", 18)]),
            ],
        ),
    ),
    "lying tensor": ("elements", lambda path: saved(path, helper.make_node("Abs", ["k"], ["y"]), initializers=[LYING])),
    "large shape": (
        "largest that is read",
        lambda path: saved(
            path, helper.make_node("Expand", ["x", "k"], ["y"]), initializers=[constant([1 << 40], "k")]
        ),
    ),
    "large constant": (
        "largest that is read",
        lambda path: saved(path, helper.make_node("Constant", [], ["y"], value_ints=[1 << 40])),
    ),
    "constant tensor": (
        "largest that is read",
        lambda path: saved(path, helper.make_node("Constant", [], ["y"], value=constant([1 << 33]))),
    ),
    "large attribute": (
        "largest that is read",
        lambda path: saved(path, helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[1 << 30, 1])),
    ),
    "large input": (
        "input or output",
        lambda path: saved(path, helper.make_node("Abs", ["x"], ["y"]), inputs=((1 << 60), 3)),
    ),
    "sparse": (
        "sparse",
        lambda path: saved(path, helper.make_node("Constant", [], ["y"], sparse_value=SPARSE)),
    ),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_graph_that_no_model_has_is_refused(kind: str, tmp_path: Path) -> None:
    reason, write = HARMFUL[kind]
    with pytest.raises(BundleError, match=reason):
        check_graph(write(tmp_path / "image.onnx"))


def test_what_models_have_passes(tmp_path: Path) -> None:
    graph = saved(
        tmp_path / "g.onnx",
        helper.make_node("Slice", ["x", "k", "end"], ["y"]),
        initializers=[constant([-1]), constant([np.iinfo(np.int64).max], "end")],
        inputs=(None, 3),
    )
    check_graph(graph)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    content = (FIXTURE / "image.onnx").read_bytes()
    name = b"visual_projection.scales"
    assert name in content
    (tmp_path / "a.onnx").write_bytes(content.replace(name, b"visual_projec\xb6ion.scales"))
    with pytest.raises(BundleError, match="not an ONNX graph"):
        check_graph(tmp_path / "a.onnx")


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 5000])
def test_a_graph_cut_short_or_of_another_kind_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.onnx").write_bytes((FIXTURE / "image.onnx").read_bytes()[:cut])
    with pytest.raises(BundleError, match=r"not an ONNX graph|is empty"):
        check_graph(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(np.random.default_rng(cut).bytes(2000))
    with pytest.raises(BundleError, match="not an ONNX graph"):
        check_graph(tmp_path / "b.onnx")


def zeros(path: Path, shape: tuple[int, ...], held: int, version: int = 1) -> None:
    """Write an .npz whose one array says it has `shape` and holds `held` bytes of zeros."""
    header = io.BytesIO()
    written = {1: np.lib.format.write_array_header_1_0, 2: np.lib.format.write_array_header_2_0}
    written[version](header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as stream:
        stream.write(header.getvalue())
        stream.write(bytes(held))


@pytest.mark.parametrize(
    ("shape", "held"), [((2 << 30,), 100), ((1 << 62, 1 << 62), 0), ((-5,), 0), ((300 << 20,), 1 << 20), ((10,), 3)]
)
def test_probes_are_not_unpacked_beyond_their_limit(tmp_path: Path, shape: tuple[int, ...], held: int) -> None:
    zeros(tmp_path / PROBES, shape, held)
    with pytest.raises(BundleError, match=PROBES):
        Probes.load(tmp_path / PROBES, HEAD)


def test_probes_of_another_make_are_refused(tmp_path: Path) -> None:
    zeros(tmp_path / PROBES, (3,), 3, version=2)
    with pytest.raises(BundleError, match="another version"):
        Probes.load(tmp_path / PROBES, HEAD)
    (tmp_path / PROBES).write_bytes(b"PK no archive")
    with pytest.raises(BundleError, match="cannot be read"):
        Probes.load(tmp_path / PROBES, HEAD)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": None},
        {"ids": np.zeros((4, 5), np.float32)},
        {"images": np.zeros((4, 16, 16, 4), np.uint8)},
        {"images": np.zeros((0, 16, 16, 3), np.uint8)},
        {"expected_image": np.zeros((4, 9), np.float32)},
        {"expected_image": np.array([["a"]])},
        {"float_text": None},
    ],
)
def test_probes_without_what_a_head_needs_are_refused(bundle: Path, change: dict[str, Any]) -> None:
    arrays = {**np.load(FIXTURE / PROBES), **change}
    np.savez(bundle / PROBES, **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(BundleError, match=PROBES):
        Probes.load(bundle / PROBES, HEAD)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": np.full((2, 8), 1 << 40)},
        {"expected_image": np.zeros((1, 8), np.float32), "float_image": np.zeros((1, 8), np.float32)},
        {"expected_text": np.zeros((2, 9), np.float32), "float_text": np.zeros((2, 9), np.float32)},
    ],
)
def test_probes_that_do_not_fit_the_graphs_are_a_bundle_error(bundle: Path, change: dict[str, Any]) -> None:
    np.savez(bundle / PROBES, **{**np.load(FIXTURE / PROBES), **change})
    list_again(bundle)
    with pytest.raises(BundleError, match=r"cannot be run|results of shape|cosine"):
        verify(bundle, engine="onnxruntime")


def test_graphs_that_have_changed_places_are_a_sentence(bundle: Path) -> None:
    for name in ("image", "text"):
        shutil.copy(FIXTURE / f"{name}.onnx", bundle / f"{'text' if name == 'image' else 'image'}.onnx")
    list_again(bundle)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(Exception, match="takes") as caught:
            verify(bundle, engine=engine)
        assert type(caught.value).__name__ == "EngineError"
