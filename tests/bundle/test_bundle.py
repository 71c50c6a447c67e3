import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, open_bundle, verify
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.engines import installed_engines
from vlmquant.errors import BundleError, CalibrationError, RecipeError
from vlmquant.quantize.recipes.presets import get_recipe

ENGINES = installed_engines()
VOCABULARY = 640  # of fakes.TINY
TEXTS = ["a red bus", "two dogs crossing a wide street at night", "a"]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(6)]


@pytest.fixture
def copy_of_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.sum(left * right, axis=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_encodes_nearly_as_the_float_model(
    tiny_bundle: Path, tiny_checkpoint: Path, pictures: list[np.ndarray], engine: str
) -> None:
    encoder, reference = open_bundle(tiny_bundle, engine=engine), load_model(str(tiny_checkpoint)).encoder()
    assert cosines(encoder.encode_images(pictures), reference.encode_images(pictures)).min() > 0.99
    assert cosines(encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)).min() > 0.99
    assert encoder.name.endswith(engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_does_not_depend_on_its_batch(tiny_bundle: Path, pictures: list[np.ndarray], engine: str) -> None:
    encoder = open_bundle(tiny_bundle, engine=engine)
    together = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    assert np.abs(together - alone).max() < 1e-5
    texts_together = encoder.encode_texts(TEXTS)
    texts_alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert np.abs(texts_together - texts_alone).max() < 1e-5


def test_the_file_is_standard_qdq_with_int8_weights(tiny_bundle: Path) -> None:
    graph = onnx.load(tiny_bundle / "image.onnx").graph
    assert {node.domain for node in graph.node} == {""}
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("QuantizeLinear") > 0
    wide = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    assert all(min(tensor.dims) == 1 or "position" in tensor.name for tensor in wide), [t.name for t in wide]


def test_the_file_holds_no_path_of_this_machine(tiny_bundle: Path) -> None:
    data = (tiny_bundle / "image.onnx").read_bytes()
    assert b".py" not in data
    assert str(Path(__file__).resolve().parents[2]).encode() not in data


def test_the_token_table_is_int8(tiny_bundle: Path) -> None:
    graph = onnx.load(tiny_bundle / "text.onnx").graph
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [VOCABULARY, 32]]
    assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.INT8]


def test_the_manifest_says_what_was_proved(tiny_bundle: Path) -> None:
    manifest = Manifest.read(tiny_bundle)
    assert manifest.precision == "static-int8"
    assert manifest.calibration is not None
    assert manifest.calibration["images"] == 8
    assert len(manifest.calibration["sha256"]) == 64
    for facts in manifest.components.values():
        assert set(facts.parity) == set(facts.integer_mac_share) == set(ENGINES)
        assert facts.fidelity["cosine_min"] > 0.98
        assert all(parity["cosine_min"] > 0.999 for parity in facts.parity.values())
        assert all(share > 0.5 for share in facts.integer_mac_share.values())


def test_verify_runs_every_engine_on_both_components(tiny_bundle: Path) -> None:
    rows = verify(tiny_bundle).rows
    assert {(row.engine, row.component) for row in rows} == {(e, c) for e in ENGINES for c in ("image", "text")}
    assert min(row.cosine_min for row in rows) > 0.999


def test_a_flipped_byte_is_refused(copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "text.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for call in (verify, open_bundle):
        with pytest.raises(BundleError, match=r"text\.onnx .* altered"):
            call(copy_of_bundle)


def test_weights_of_another_model_do_not_pass_the_probes(copy_of_bundle: Path) -> None:
    model = onnx.load(copy_of_bundle / "image.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
            tensor.raw_data = bytes(reversed(tensor.raw_data))
    onnx.save(model, copy_of_bundle / "image.onnx")
    manifest = Manifest.read(copy_of_bundle)
    from dataclasses import replace

    from vlmquant.bundle.manifest import file_facts

    forged = {**manifest.files, "image.onnx": file_facts(copy_of_bundle / "image.onnx")}
    replace(manifest, files=forged).write(copy_of_bundle)
    with pytest.raises(BundleError, match=r"'image' on .* cosine"):
        verify(copy_of_bundle)


def test_one_component_alone_leaves_the_other_float(
    tiny_checkpoint: Path, calibration: CalibrationSet, tmp_path: Path
) -> None:
    model = load_model(str(tiny_checkpoint))
    out = quantize_model(model, get_recipe("static-int8"), calibration, tmp_path / "b", components=("image",))
    manifest = Manifest.read(out)
    assert manifest.components["text"].precision == "float32"
    assert manifest.components["text"].fidelity["cosine_min"] == pytest.approx(1.0, abs=1e-6)
    assert manifest.name == "clip image=static-int8 text=float32"


def test_dynamic_needs_no_calibration(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_checkpoint))
    out = quantize_model(model, get_recipe("dynamic-int8"), None, tmp_path / "b")
    assert Manifest.read(out).calibration is None
    assert verify(out, engine="onnxruntime").rows
    assert open_bundle(out).name.endswith("onnxruntime")


def test_bad_requests_are_refused_before_any_work(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_checkpoint))
    with pytest.raises(CalibrationError, match="--calibrate"):
        quantize_model(model, get_recipe("static-int8"), None, tmp_path / "b")
    with pytest.raises(RecipeError, match="'audio'"):
        quantize_model(model, get_recipe("dynamic-int8"), None, tmp_path / "b", components=("audio",))
    with pytest.raises(BundleError, match="--overwrite"):
        quantize_model(model, get_recipe("dynamic-int8"), None, tiny_bundle)
    with pytest.raises(BundleError, match="not a bundle"):
        quantize_model(model, get_recipe("dynamic-int8"), None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_a_bundle_with_nothing_else_in_it_is_overwritten(
    tiny_checkpoint: Path, copy_of_bundle: Path, tmp_path: Path
) -> None:
    (copy_of_bundle / "notes.txt").write_text("mine")
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"name": "a web page"}')
    model, recipe = load_model(str(tiny_checkpoint)), get_recipe("dynamic-int8")
    with pytest.raises(BundleError, match=r"notes\.txt, which would be lost"):
        quantize_model(model, recipe, None, copy_of_bundle, overwrite=True)
    with pytest.raises(BundleError, match="a bundle that cannot be read"):
        quantize_model(model, recipe, None, site, overwrite=True)
    assert (copy_of_bundle / "notes.txt").read_text() == "mine"
    assert [path.name for path in site.iterdir()] == ["manifest.json"]


def test_what_appears_while_a_bundle_is_built_is_kept(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(folder: Path, *_: object, **__: object) -> None:
        assert folder.parent == tmp_path
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.txt").write_text("years")

    monkeypatch.setattr("vlmquant.build.build.write_proved", appear)
    with pytest.raises(BundleError, match="not a bundle"):
        quantize_model(load_model(str(tiny_checkpoint)), get_recipe("dynamic-int8"), None, tmp_path / "b")
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "thesis.txt"]


def test_a_failure_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("vlmquant.build.prove.export_graph", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        quantize_model(load_model(str(tiny_checkpoint)), get_recipe("dynamic-int8"), None, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_same_inputs_give_the_same_bytes(
    tiny_checkpoint: Path, calibration: CalibrationSet, tiny_bundle: Path, tmp_path: Path
) -> None:
    again = quantize_model(load_model(str(tiny_checkpoint)), get_recipe("static-int8"), calibration, tmp_path / "b")
    for name in ("image.onnx", "text.onnx"):
        assert Manifest.read(again).files[name] == Manifest.read(tiny_bundle).files[name]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "safetensors"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import numpy as np
from vlmquant.bundle import open_bundle, verify
bundle = sys.argv[1]
verify(bundle)
encoder = open_bundle(bundle)
rows = encoder.encode_images([np.zeros((30, 30, 3), np.uint8)]) @ encoder.encode_texts(["a street"]).T
assert rows.shape == (1, 1)
import vlmquant.cli.app, vlmquant.video.detect, vlmquant.bench
print("ok", sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_a_bundle_runs_without_torch_and_transformers(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tiny_bundle)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "ok []", done.stderr
