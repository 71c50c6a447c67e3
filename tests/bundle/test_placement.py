"""Where a bundle runs: proved on this machine, never wrong in silence, never refused while a right way exists."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import saturation
from children import FAULTY, in_the_child, without_children
from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, open_bundle, placement, verify
from vlmquant.bundle.placement import Placement, in_words, place, usual_engine
from vlmquant.bundle.probes import PROBES, Probes, pixels_of
from vlmquant.bundle.proof import prove
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.engines import ENGINES, Cpu, installed_engines
from vlmquant.errors import BundleError, EngineError, VlmQuantError
from vlmquant.files import cache_folder
from vlmquant.models.spec import ImageSpec
from vlmquant.opening import open_named
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.schemes import WeightScheme

OLD = Cpu("an old one", "x86_64", frozenset({"sse4_1", "avx2"}))
VNNI = ("avx512_vnni",)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def overflowing(tiny_checkpoint: Path, calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose second MLP layers are full of the largest weights and see the largest activations."""
    model = load_model(str(tiny_checkpoint))
    for tower in (model.image_tower, model.text_tower):
        for name, module in tower.named_modules():
            if name.endswith("mlp.fc1"):
                module.bias = torch.nn.Parameter(module.bias.detach() + 4)
            elif name.endswith("mlp.fc2"):
                # Every row adds up to the same, but only in odd rows do neighbours share it and overflow together.
                shape = torch.ones_like(module.weight)
                shape[::2, ::2], shape[::2, 1::2] = 0, 2
                noise = torch.rand(shape.shape, generator=torch.Generator().manual_seed(0))
                module.weight = torch.nn.Parameter(0.05 * shape * (1 + noise / 5))
    recipe = dataclasses.replace(get_recipe("static-int8"), outliers=None, weights=WeightScheme(portable=False))
    return quantize_model(model, recipe, calibration, tmp_path_factory.mktemp("overflowing") / "bundle")


TAMPERED = json.dumps(
    {"placements": {name: {"engine": "foo", "arithmetic": "int4", "reason": ""} for name in ("image", "text")}}
)


def test_overflow_on_an_engine_that_saturates_is_found_and_gone_round(
    overflowing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(overflowing, tmp_path / "bundle"))
    assert Manifest.read(folder).requires_any_of  # the file itself says that it may overflow; now it keeps silent
    dataclasses.replace(Manifest.read(folder), requires_any_of=()).write(folder)
    monkeypatch.setattr(sys.modules["vlmquant.engines"], "ENGINES", saturation.only([saturation.SATURATING]))
    in_the_child(monkeypatch, "import saturation; saturation.main()")
    probes = Probes.load(folder / PROBES, Manifest.read(folder).head)
    pixels = pixels_of(probes.inputs, ImageSpec.from_folder(folder))
    wrong = saturation.load(folder / "image.onnx", None)(pixels)

    encoder = open_bundle(folder)

    assert "saturating in float32" in encoder.name
    assert {note.partition(":")[0] for note in encoder.notes} == {"image", "text"}
    assert all("gave cosine" in note and "it runs on saturating in float32" in note for note in encoder.notes)
    right = probes.expected.rows["image"]
    assert np.abs(encoder.image_tower(pixels) - right).max() < 0.01 * np.abs(right).max()
    assert np.abs(wrong - right).max() > 0.1 * np.abs(right).max()
    assert "it runs on saturating in float32" in open_named(folder).facts["engine_warning"]
    with pytest.raises(BundleError, match="computes something else"):
        verify(folder)


def test_the_same_integers_made_portable_saturate_nowhere(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["vlmquant.engines"], "ENGINES", saturation.only([saturation.SATURATING]))
    in_the_child(monkeypatch, "import saturation; saturation.main()")
    encoder = open_bundle(tiny_bundle)
    assert encoder.name.endswith("on saturating")
    assert encoder.notes == ()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("row = replace(row, cosine_min=float('nan')) if engine == 'openvino' else row", "gave cosine nan"),
        ("row = replace(row, cosine_min=0.5) if engine == 'openvino' else row", "gave cosine 0.5000"),
        ("__import__('os')._exit(139) if engine == 'openvino' else None", "exit status 139"),
        ("row = row if engine == 'onnxruntime' else no_such_kernel", "no_such_kernel"),
    ],
)
def test_an_engine_that_fails_or_is_wrong_is_passed_over(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    in_the_child(monkeypatch, FAULTY.format(fault=fault))
    for engine in ("openvino", "auto"):
        monkeypatch.setenv("VLMQUANT_AUTO", "measured")
        placed = place(bundle, Manifest.read(bundle), engine=engine)
        assert {each.engine for each in placed.values()} == {"onnxruntime"}
        assert all(each.warning and said in each.warning for each in placed.values())


def test_where_no_way_is_right_nothing_is_opened(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_child(monkeypatch, FAULTY.format(fault="row = replace(row, cosine_min=0.1)"))
    with pytest.raises(EngineError, match=r"no engine here computes 'image'.*openvino in float32 gave cosine 0.1"):
        open_bundle(bundle)
    assert open_bundle(bundle, probe=False).notes == ()


def test_what_was_found_is_remembered_until_something_changes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(bundle)
    found = place(bundle, manifest)
    with monkeypatch.context() as patch:
        without_children(patch)
        assert place(bundle, manifest) == found
        for change in ({"threads": 1}, {"engine": "openvino"}):
            with pytest.raises(AssertionError, match="nothing was to be run"):
                place(bundle, manifest, **change)
        patch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        with pytest.raises(AssertionError, match="nothing was to be run"):
            place(bundle, manifest)
    dataclasses.replace(manifest, name="another").write(bundle)
    with monkeypatch.context() as patch:
        without_children(patch)
        with pytest.raises(AssertionError, match="nothing was to be run"):
            place(bundle, manifest)


def test_a_failure_of_the_process_is_not_remembered(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        in_the_child(patch, FAULTY.format(fault="__import__('os')._exit(137) if engine == 'onnxruntime' else None"))
        assert place(bundle, Manifest.read(bundle), engine="onnxruntime")["image"].warning
    assert place(bundle, Manifest.read(bundle), engine="onnxruntime")["image"].warning is None


def test_an_engine_that_gives_nothing_for_one_input_is_not_right(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.read(tiny_bundle)
    stored = Probes.load(tiny_bundle / PROBES, manifest.head).expected.rows["text"]
    graphs = {"text": lambda ids: stored if len(ids) > 1 else stored[:0]}
    monkeypatch.setattr("vlmquant.bundle.proof.load_graphs", lambda *_: graphs)
    with pytest.raises(BundleError, match=r"text on openvino gives results of shape \(0, \d+\), stored are \(1, "):
        list(prove(tiny_bundle, manifest, "openvino", ["text"]))


def test_where_no_process_can_be_started_the_bundle_opens_unproved_and_says_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    encoder = open_bundle(bundle)
    (note,) = encoder.notes
    assert note.startswith("image, text: it could not be proved here")


def test_a_user_without_a_home_opens_bundles(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert open_bundle(bundle).notes == ()
    with pytest.raises(VlmQuantError, match="set XDG_CACHE_HOME"):
        cache_folder("bundles")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"placements": {"image": 3}}', '{"placements": {"image": {}}}', TAMPERED]
)
def test_a_damaged_memory_is_made_again(bundle: Path, tmp_path: Path, content: str) -> None:
    found = place(bundle, Manifest.read(bundle))
    (file,) = (tmp_path / "cache" / "vlmquant" / "placements").iterdir()
    file.write_text(content)
    assert place(bundle, Manifest.read(bundle)).keys() == found.keys()
    assert json.loads(file.read_text())["placements"].keys() == found.keys()


def test_a_memory_that_cannot_be_written_stops_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_bundle(bundle).encode_texts(["a dog"]).shape == (1, 24)


def test_measured_times_choose_the_faster_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQUANT_AUTO", "measured")
    for faster, slower in (("openvino", "onnxruntime"), ("onnxruntime", "openvino")):
        fault = f"row = replace(row, latency_ms=1.0 if engine == {faster!r} else 2.0)"
        in_the_child(monkeypatch, FAULTY.format(fault=fault))
        placed = place(bundle, dataclasses.replace(Manifest.read(bundle)), threads=1 if faster == "openvino" else 2)
        assert {each.engine for each in placed.values()} == {faster}
        assert placed["image"].reason == f"measured here: {faster} 1 ms, {slower} 2 ms"
        assert placed["image"].warning is None


def test_both_engines_are_really_timed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQUANT_AUTO", "measured")
    for placed in place(bundle, Manifest.read(bundle)).values():
        assert placed.latency_ms is not None
        assert placed.latency_ms > 0
        assert all(name in placed.reason for name in installed_engines())


def test_overflow_that_the_bundle_tells_of_is_avoided_before_it_happens(
    overflowing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(placement, "this_cpu", lambda: OLD)
    for probe in (True, False):
        encoder = open_bundle(overflowing, probe=probe)
        assert "in float32" in encoder.name
        assert all("8-bit integers can overflow on this CPU (an old one)" in note for note in encoder.notes)
    expected = Probes.load(overflowing / PROBES, Manifest.read(overflowing).head)
    pixels = pixels_of(expected.inputs, ImageSpec.from_folder(overflowing))
    right = expected.expected.rows["image"]
    assert np.abs(encoder.image_tower(pixels) - right).max() < 0.01 * np.abs(right).max()


def test_without_proof_nothing_is_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_children(monkeypatch)
    manifest = Manifest.read(bundle)
    placed = place(bundle, manifest, probe=False)
    assert {each.engine for each in placed.values()} == {usual_engine(manifest, "image")[0]}
    assert all("not proved here" in each.reason for each in placed.values())
    assert place(bundle, manifest, engine="openvino", probe=False)["text"].engine == "openvino"


def test_mistakes_are_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(bundle)
    with pytest.raises(EngineError, match="tensorrt"):
        place(bundle, manifest, engine="tensorrt")
    monkeypatch.setenv("VLMQUANT_AUTO", "fastest")
    with pytest.raises(EngineError, match=r"VLMQUANT_AUTO.*measured, table"):
        place(bundle, manifest)
    monkeypatch.setattr("vlmquant.engines.entry.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="no engine is installed"):
        place(bundle, manifest)


def test_placements_in_words() -> None:
    def placed(engine: str, arithmetic: str = "integer") -> Placement:
        return Placement(engine=engine, arithmetic=arithmetic, reason="")  # type: ignore[arg-type]

    assert in_words({"image": placed("openvino"), "text": placed("openvino")}) == "openvino"
    mixed = {"image": placed("openvino"), "text": placed("onnxruntime", "float")}
    assert in_words(mixed) == "image on openvino, text on onnxruntime in float32"


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_both_arithmetics_give_the_results_of_the_simulation(
    tiny_bundle: Path, name: str, arithmetic: str, cosines_of: Callable[[Path, str, str], dict[str, float]]
) -> None:
    assert min(cosines_of(tiny_bundle, name, arithmetic).values()) > 0.9997


@pytest.fixture
def cosines_of() -> Callable[[Path, str, str], dict[str, float]]:
    from vlmquant.bundle.proof import prove

    def measure(folder: Path, engine: str, arithmetic: str) -> dict[str, float]:
        manifest = Manifest.read(folder)
        rows = prove(folder, manifest, engine, list(manifest.components), arithmetic=arithmetic)  # type: ignore[arg-type]
        return {row.component: row.cosine_min for row in rows}

    return measure
