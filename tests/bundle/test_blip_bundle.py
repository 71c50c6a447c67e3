"""BLIP bundles on both engines: what they hold, that they compute what the simulation does, that damage is found."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from fakes import tiny_blip_folder
from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, open_bundle, verify
from vlmquant.bundle.placement import place, usual_engine
from vlmquant.bundle.probes import PROBES, Probes
from vlmquant.bundle.proof_worker import answer
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.engines import Cpu, installed_engines
from vlmquant.errors import BundleError, CalibrationError, RecipeError
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.writer import WriterKind
from vlmquant.quantize.recipes.presets import get_recipe

RECIPES: dict[WriterKind, dict[str, str]] = {
    "captioning": {"vision": "static-int8", "decoder": "static-int8"},
    "vqa": {"vision": "static-int8", "question_encoder": "dynamic-int8", "decoder": "int8-weights"},
    "matching": {"vision": "int8-weights", "matcher": "static-int8"},
}
GRAPHS = {
    "captioning": {"vision", "cross", "decoder"},
    "vqa": {"vision", "cross", "decoder", "question_encoder"},
    "matching": {"vision", "matcher"},
}


@dataclass(frozen=True)
class Built:
    """A float model and its bundle."""

    model: BlipModel
    folder: Path
    manifest: Manifest


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return list(np.random.default_rng(5).integers(0, 256, (3, 48, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, calibration: CalibrationSet) -> Callable[[WriterKind], Built]:
    made: dict[WriterKind, Built] = {}

    def build(kind: WriterKind) -> Built:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = load_blip(tiny_blip_folder(folder / "checkpoint", kind))
            recipes = {component: get_recipe(name) for component, name in RECIPES[kind].items()}
            output = quantize_model(model, recipes, calibration, folder / "bundle")
            made[kind] = Built(model, output, Manifest.read(output))
        return made[kind]

    return build


@pytest.mark.parametrize("kind", RECIPES)
def test_every_graph_agrees_with_the_simulation_on_every_engine(
    built: Callable[[WriterKind], Built], kind: WriterKind
) -> None:
    manifest = built(kind).manifest
    assert manifest.head == built(kind).model.bundle_head
    assert set(manifest.components) == GRAPHS[kind]
    for graph, facts in manifest.components.items():
        component = "decoder" if graph == "cross" else graph
        assert facts.precision == RECIPES[kind][component]
        assert facts.fidelity["cosine_mean"] > 0.99
        assert set(facts.parity) == set(installed_engines())
        assert all(parity["cosine_min"] > 0.999 for parity in facts.parity.values()), graph


@pytest.mark.parametrize("kind", ["captioning", "vqa"])
def test_engines_write_the_tokens_of_the_simulation(built: Callable[[WriterKind], Built], kind: WriterKind) -> None:
    folder = built(kind).folder
    probes = Probes.load(folder / PROBES, built(kind).manifest.head)
    expected, float_expected = probes.expected, probes.float_expected
    assert expected.tokens.shape == (4, 10)
    assert len({tuple(row) for row in expected.tokens}) > 1, "what is written depends on the image"
    assert expected.tokens.shape == float_expected.tokens.shape
    rows = [row for row in verify(folder).rows if row.component == "decoder"]
    assert {row.engine for row in rows} == set(installed_engines())
    assert all(row.equal_tokens == 1.0 for row in rows)


def test_captions_depend_neither_on_the_engine_nor_on_neighbours(
    built: Callable[[WriterKind], Built], pictures: list[np.ndarray]
) -> None:
    captioning = built("captioning")
    options = GenerationOptions(max_new_tokens=6, min_new_tokens=6)
    runners = [open_bundle(captioning.folder, engine=engine, options=options) for engine in installed_engines()]
    assert [engine in runner.name for engine, runner in zip(installed_engines(), runners, strict=True)] == [True, True]
    written = [runner.caption_ids(pictures) for runner in runners]
    assert written[0] == written[1]
    assert written[0] == [runners[0].caption_ids([picture])[0] for picture in pictures]


def test_beams_run_on_both_engines(built: Callable[[WriterKind], Built], pictures: list[np.ndarray]) -> None:
    options = GenerationOptions(max_new_tokens=6, beams=3)
    captions = {
        tuple(open_bundle(built("captioning").folder, engine=engine, options=options).caption(pictures))
        for engine in installed_engines()
    }
    assert len(captions) == 1


def test_questions_of_several_lengths_are_answered_as_one_by_one(
    built: Callable[[WriterKind], Built], pictures: list[np.ndarray]
) -> None:
    questions = ["why?", "what color is it?", "who?"]
    runner = open_bundle(built("vqa").folder)
    assert "onnxruntime" in runner.name, "the question encoder is quantized per token"
    together = runner.answer_ids(pictures, questions)
    assert together == [runner.answer_ids([p], [q])[0] for p, q in zip(pictures, questions, strict=True)]


def test_a_matcher_gives_probabilities(built: Callable[[WriterKind], Built], pictures: list[np.ndarray]) -> None:
    texts = ["a dog", "a red car", "a cat"]
    matching = built("matching")
    floats = matching.model.runner().match(pictures, texts)
    for engine in installed_engines():
        np.testing.assert_allclose(open_bundle(matching.folder, engine=engine).match(pictures, texts), floats, atol=0.1)


def test_table_and_output_head_are_stored_once_in_8_bits(built: Callable[[WriterKind], Built]) -> None:
    for kind in ("captioning", "vqa"):
        graph = onnx.load(built(kind).folder / "decoder.onnx").graph
        rows = 160  # the vocabulary
        tables = [tensor for tensor in graph.initializer if rows in tensor.dims and len(tensor.dims) == 2]
        assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.INT8]


def test_the_output_head_runs_in_integers(built: Callable[[WriterKind], Built]) -> None:
    from vlmquant.checkpoints.blip.inputs import graph_examples
    from vlmquant.engines import engine

    captioning = built("captioning")
    inputs = graph_examples(captioning.model)["decoder"].audited
    for name in installed_engines():
        layers = engine(name).audit(captioning.folder / "decoder.onnx", *inputs).layers
        (head,) = [layer for layer in layers if layer.macs == 32 * 160]
        assert head.kernel == "int8", name
    shares = captioning.manifest.components["cross"].integer_mac_share
    assert all(share == 1.0 for share in shares.values())


def test_auto_knows_an_engine_for_each_graph(
    built: Callable[[WriterKind], Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioning, vqa = built("captioning").manifest, built("vqa").manifest
    monkeypatch.setattr("vlmquant.engines.this_cpu", lambda: Cpu("new", "x86_64", frozenset({"avx512_vnni"})))
    assert [usual_engine(captioning, graph)[0] for graph in ("vision", "decoder")] == ["openvino", "onnxruntime"]
    assert [usual_engine(vqa, graph)[0] for graph in ("question_encoder", "decoder")] == ["onnxruntime", "openvino"]


def test_each_graph_runs_where_it_is_measured_to_be_fastest(
    built: Callable[[WriterKind], Built], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("VLMQUANT_AUTO", "measured")
    captioning = built("captioning")
    placements = place(captioning.folder, captioning.manifest)
    assert set(placements) == set(captioning.manifest.components)
    for graph, placed in placements.items():
        assert placed.arithmetic == "integer", graph
        assert placed.latency_ms is not None, graph
        assert all(name in placed.reason for name in installed_engines()), graph


def test_graphs_on_several_engines_are_proved_as_a_chain(built: Callable[[WriterKind], Built]) -> None:
    ways = {"vision": ("openvino", "integer"), "cross": ("onnxruntime", "float"), "decoder": ("onnxruntime", "integer")}
    request = {"command": "prove_together", "folder": str(built("captioning").folder), "ways": ways, "threads": 1}
    rows = answer(request)["rows"]
    assert set(rows) == GRAPHS["captioning"]
    assert all(row["cosine_min"] >= row["floor"] for row in rows.values())
    assert rows["decoder"]["equal_tokens"] == 1.0


def test_damage_is_found(built: Callable[[WriterKind], Built], tmp_path: Path) -> None:
    folder = shutil.copytree(built("captioning").folder, tmp_path / "copy")
    content = bytearray((folder / "decoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "decoder.onnx").write_bytes(content)
    for use in (verify, open_bundle):
        with pytest.raises(BundleError, match=r"decoder\.onnx .* altered"):
            use(folder)


def test_what_does_not_fit_is_refused_before_any_work(
    built: Callable[[WriterKind], Built], calibration: CalibrationSet, tmp_path: Path
) -> None:
    model, output = built("captioning").model, tmp_path / "out"
    with pytest.raises(RecipeError, match="unknown component of a captioner 'matcher'; known: d"):
        quantize_model(model, {"matcher": get_recipe("static-int8")}, calibration, output)
    with pytest.raises(CalibrationError, match="pass a calibration set"):
        quantize_model(model, {"decoder": get_recipe("static-int8")}, None, output)
    with pytest.raises(RecipeError, match="simulation only"):
        quantize_model(model, {"decoder": get_recipe("torch-dynamic")}, calibration, output)
    with pytest.raises(RecipeError, match="no component to quantize"):
        quantize_model(model, {}, calibration, output)
    assert not output.exists()
