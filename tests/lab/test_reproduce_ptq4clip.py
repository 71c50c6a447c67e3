"""The ptq4clip source, run again on a tiny CLIP and a few pictures of noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import streetworld
from vlmquant.checkpoints import load_model
from vlmquant.data.sets import CaptionedImages, LabelledImages, QuestionedImages
from vlmquant.errors import DataError, ModelError
from vlmquant.lab.guided import GuidedOptions
from vlmquant.lab.reproduce.ptq4clip import bit_figures, bit_forms, clip_tasks
from vlmquant.lab.reproduce.ptq4clip import evaluation as source
from vlmquant.lab.reproduce.ptq4clip.bit_forms import FLOAT, OURS, SimulatedClip, forms_of, twin, vanilla
from vlmquant.lab.reproduce.ptq4clip.clip_tasks import BARE, CAPTIONS, PROMPTED, QUESTIONS, RETRIEVAL
from vlmquant.lab.reproduce.ptq4clip.source_sets import recognised, source_sets
from vlmquant.lab.reproduce.ptq4clip.street_sets import street_sets
from vlmquant.lab.reproduce.published import PUBLISHED, count_remark
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.run import reproduce
from vlmquant.lab.reproduce.samples import some_of
from vlmquant.progress import silent
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.report.reproduction import chart_figure, write_reproduction
from vlmquant.tasks.store import Store

FEW_FORMS = (FLOAT, OURS, vanilla(8), vanilla(2))


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)).save(path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_classes(folder: Path, names: tuple[str, ...], each: int = 4) -> None:
    for number, name in enumerate(names):
        for one in range(each):
            picture(folder / name / f"{one}.png", 10 * number + one)


def write_coco(folder: Path, pictures: int = 3) -> None:
    names = [f"{number:012d}.png" for number in range(pictures)]
    for number, name in enumerate(names):
        picture(folder / "val2017" / name, number)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    captions = [{"id": n, "image_id": n, "caption": f"a red bus number {n}"} for n in range(pictures)]
    write_json(folder / "annotations" / "captions_val2017.json", {"images": images, "annotations": captions})


def write_vqa(folder: Path, pictures: int = 3) -> None:
    asked, answered = [], []
    for number in range(pictures):
        picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg", number)
        for one in range(2):
            ids = {"question_id": 10 * number + one, "image_id": number}
            asked.append({**ids, "question": f"is it {one}?"})
            kinds = {"question_type": "is it", "answer_type": "yes/no"}
            answered.append({**ids, **kinds, "answers": [{"answer": "yes"}] * 10})
    write_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write_json(folder / "v2_mscoco_val2014_annotations.json", {"annotations": answered})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets in one folder: classes, and COCO's captions."""
    folder = tmp_path_factory.mktemp("data")
    write_classes(folder / "animals", ("a_cat", "a_dog", "a_horse"))
    write_coco(folder / "coco")
    return folder


def test_it_runs_whole_goes_on_where_it_was_and_gives_one_page(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "forms_of", lambda model: FEW_FORMS)
    monkeypatch.setattr(source, "STEERED_BITS", (8,))
    request = ReproductionRequest(
        output=tmp_path / "run",
        data=data,
        checkpoint=str(tiny_checkpoint),
        language_model=str(streetworld.checkpoint("street-gpt2")),
        limit=6,
        threads=1,
    )
    monkeypatch.setattr(source, "STEERED", GuidedOptions(beams=1, candidates=2, max_new_tokens=3, prompt="a"))
    real, quantized = quantize_tower, []

    def dies_in_the_second(tower: Any, recipe: Recipe, *rest: Any) -> Any:
        quantized.append(recipe.name)
        if len(quantized) == 3:
            raise KeyboardInterrupt
        return real(tower, recipe, *rest)

    monkeypatch.setattr(bit_forms, "quantize_tower", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        reproduce("ptq4clip", request)
    assert quantized == ["static-int8", "static-int8", "vanilla-w8a8"]
    found = reproduce("ptq4clip", request)
    assert quantized[3:] == ["vanilla-w8a8", "vanilla-w8a8", "vanilla-w2a2", "vanilla-w2a2"]
    # Of four forms: two classifications, retrieval, cosines on two sets; captions of three; two bundles.
    assert (found.steps, found.computed) == (4 * 5 + 3 + 2, 2 * 5 + 1 + 2)
    assert found.stand_ins == ()
    again = reproduce("ptq4clip", request)
    assert (again.computed, again.rows) == (0, found.rows)

    rows = {row.what: row for row in found.rows}
    eight_bits = rows["Classification with prompts, top-1 %: vanilla-w8a8"]
    assert eight_bits.printed == "41.24; drop of 11 points"
    assert "[" in eight_bits.its_method
    assert "[" in eight_bits.ours
    assert float(rows["MB on disk: 8 bits"].its_method) < float(rows["MB on disk: FP32"].its_method)
    assert any("Question answering here: left out" in note for note in found.notes)
    assert any("https://visualqa.org" in note for note in found.notes)
    assert any("COCO val2017 has 5,000 test samples, these are 3" in note for note in found.notes)
    assert any("Ranges were measured on scored pictures" in note for note in found.notes)

    written = write_reproduction(tmp_path / "run", found)
    assert json.loads(written[0].read_text())["source"] == "ptq4clip"
    assert "55.92" in written[1].read_text()


def outcome(metric: str, *values: float) -> dict[str, Any]:
    return {metric: {"values": list(values), "clusters": list(range(len(values)))}}


def test_figures_are_those_of_the_answers() -> None:
    hundred = {name: [1.0] * n + [0.0] * (100 - n) for name, n in (("all", 90), ("some", 80), ("none", 0))}
    forms = (FLOAT, OURS, vanilla(16), vanilla(8), vanilla(4), twin(8))
    tops = {
        "FP32": "all",
        "static-int8": "all",
        "vanilla-w16a16": "all",
        "vanilla-w8a8": "some",
        "vanilla-w4a4": "none",
    }
    outcomes = {
        PROMPTED: {
            name: outcome("top1", *hundred[which]) for name, which in {**tops, "twin-hessian-w8a8": "all"}.items()
        },
        CAPTIONS: {
            "FP32": outcome("CIDEr", 0.5, 4.0),
            "static-int8": outcome("CIDEr", 0.5, 4.0),
            "vanilla-w8a8": outcome("CIDEr", 0.5, 1.0),
        },
    }
    cosines = {"cars": {form.name: [1.0, 1.0 if form.bits > 8 else 0.5] for form in forms}}
    rows = {row.what: row for row in bit_figures.rows(forms, outcomes, cosines, {"cars": "Cars"})}
    top1 = "Classification with prompts, top-1 %"
    assert (rows[f"{top1}: FP32"].printed, rows[f"{top1}: FP32"].its_method) == ("55.92", "90.0")
    assert rows[f"{top1}: vanilla-w8a8"].its_method.startswith("80.0, -10.0 [-")
    assert rows[f"{top1}: vanilla-w8a8"].ours.startswith("90.0, +0.0 [")
    assert rows[f"{top1}: vanilla-w4a4"].its_method.startswith("0.0, -90.0 [-")
    assert rows[f"{top1}: vanilla at 16 bits"].its_method == "90.0"
    assert rows["Captions steered by CLIP, CIDEr x 100: vanilla-w8a8"].its_method == "75.0, -150.0 [-300.0, +0.0]"
    assert (
        rows["Mean cosine to FP32, pictures of Cars: vanilla at 16 / 8 / 4 bits"].its_method
        == "1.0000 / 0.7500 / 0.7500"
    )
    assert not any(row.what.startswith("Questions") for row in rows.values())

    charts = {chart.title: chart for chart in bit_figures.charts(forms, outcomes, cosines, {"cars": "Cars"})}
    by_bits = charts[f"{top1}, by bits"]
    assert by_bits.lines["vanilla"] == ([32.0, 16, 8, 4], [90.0, 90.0, 80.0, 0.0])
    assert by_bits.lines["static-int8"] == ([8], [90.0])
    (axes,) = chart_figure(by_bits).axes
    assert "n = 100" in axes.get_title(loc="left")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["4", "8", "16", "32"]
    shares = charts["Cosine to the FP32 embedding, vanilla, Cars"].lines
    assert list(shares) == ["16 bits", "8 bits", "4 bits"]
    assert [sum(y) for _, y in shares.values()] == pytest.approx([1, 1, 1])
    assert shares["8 bits"][1][0] == shares["8 bits"][1][-1] == 0.5
    assert shares["8 bits"][0][-1] == pytest.approx(np.log10(0.5), abs=0.1)


def test_widths_without_a_preset_are_otherwise_like_one() -> None:
    for form in (vanilla(16), twin(3)):
        assert form.recipe is not None
        assert form.recipe.activations is not None
        assert (form.recipe.weights.bits, form.recipe.activations.bits) == (form.bits, form.bits)
    assert twin(3).recipe.overrides == twin(4).recipe.overrides  # type: ignore[union-attr]


def test_layouts_are_recognised(data: Path, tmp_path: Path) -> None:
    everything = source_sets(data, silent)
    assert (list(everything.labelled), list(everything.captioned)) == (["animals"], ["coco-val2017"])
    assert everything.labelled["animals"].class_names == ("a cat", "a dog", "a horse")

    write_coco(tmp_path / "all")
    write_vqa(tmp_path / "all")
    flickr = [{"filename": "a.png", "split": "test", "sentences": [{"raw": "a car"}]}]
    write_json(tmp_path / "all" / "dataset_flickr8k.json", {"images": flickr})
    picture(tmp_path / "all" / "images" / "a.png", 0)
    one = source_sets(tmp_path / "all", silent)
    assert list(one.all) == ["coco-val2017", "flickr8k-test", "vqa-v2-val"]
    assert one.labelled == {}
    assert len(one.questioned["vqa-v2-val"].questions) == 6

    write_classes(tmp_path / "imagenetv2-matched-frequency-format-val", ("0", "1", "10"), 1)
    classes = tmp_path / "imagenetv2-matched-frequency-format-val"
    with pytest.raises(DataError, match=r"add .*classnames\.txt"):
        source_sets(classes, silent)
    (classes / "classnames.txt").write_text("\n".join(f"thing {n}" for n in range(11)))
    labelled = source_sets(tmp_path, silent).labelled["imagenetv2"]
    assert labelled.labels.tolist() == [0, 1, 10]

    write_classes(tmp_path / "synsets", ("n01440764", "n01443537"), 1)
    with pytest.raises(DataError, match="WordNet numbers, which name nothing"):
        source_sets(tmp_path / "synsets", silent)
    assert [found.name for found in recognised(tmp_path)][:1] == ["imagenetv2"]
    assert any("synsets was left out" in remark for remark in source_sets(tmp_path, silent).remarks)


def test_what_cannot_be_run_is_said(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data that ptq4clip can read; give ImageNetV2"):
        source_sets(tmp_path / "empty", silent)
    with pytest.raises(DataError, match="event-detection has no use for a language model"):
        reproduce("event-detection", ReproductionRequest(output=tmp_path, language_model="gpt2"))
    write_vqa(tmp_path / "vqa")
    request = ReproductionRequest(output=tmp_path, data=data, checkpoint=str(tiny_checkpoint))
    sets, model = source_sets(data, silent), load_model(str(tiny_checkpoint))
    asked = source_sets(tmp_path / "vqa", silent)
    assert "name a folder of GPT-2 with --language-model" in str(source._steering(request, sets))
    assert "training/train_mcan.py" in str(source._answering(request, model, asked))
    street = streetworld.checkpoint("street-mcan")
    with pytest.raises(ModelError, match="train one for this CLIP"):
        source._answering(ReproductionRequest(output=tmp_path, data=data, answer_network=street), model, asked)
    assert count_remark("coco-val2017", PUBLISHED["coco-val2017"].samples) is None


def test_sets_are_thinned_evenly_with_what_is_known_of_them(tmp_path: Path) -> None:
    write_vqa(tmp_path, 5)
    sets = source_sets(tmp_path, silent)
    thinned = some_of(sets.questioned["vqa-v2-val"], 3)
    assert [name[-5] for name in thinned.ids] == ["0", "2", "4"]
    assert [question.image_index for question in thinned.questions] == [0, 0, 1, 1, 2, 2]
    assert thinned.digest != sets.questioned["vqa-v2-val"].digest
    scored = source.scored_sets(sets, 3)
    calibration, on_scored = source.calibration_of(ReproductionRequest(output=tmp_path, data=tmp_path), sets, scored)
    assert on_scored
    assert len(calibration.images) == 5


def test_all_five_tasks_run_on_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "forms_of", lambda model: FEW_FORMS[:3])
    monkeypatch.setattr(source, "STREET_STEERED", GuidedOptions(beams=1, candidates=2, max_new_tokens=3))
    monkeypatch.setattr(source, "_size", lambda *rest: {"bytes_on_disk": 1})
    found = reproduce("ptq4clip", ReproductionRequest(output=tmp_path, limit=2, threads=1))
    assert len(found.stand_ins) == 2
    tasks = {
        score.title for score in bit_figures.SCORES if score.task in (BARE, PROMPTED, RETRIEVAL, CAPTIONS, QUESTIONS)
    }
    assert {row.what.rsplit(": ", 1)[0] for row in found.rows if "MB" not in row.what} >= tasks
    drawn = street_sets(tmp_path / "again", 2, silent)
    kinds = (LabelledImages, CaptionedImages, QuestionedImages)
    assert [type(one) for one in drawn.all.values()] == list(kinds)
    assert [len(one) for one in drawn.all.values()] == [2, 2, 2]


def test_a_resnet_has_no_twin_ranges(tmp_path: Path) -> None:
    from vlmquant.checkpoints.architectures import resnet_config
    from vlmquant.checkpoints.random_weights import write_random_checkpoint

    config = resnet_config(image_size=32, layers=(1, 1, 1, 1), width=64, text=(64, 1), projection=16)
    model = load_model(write_random_checkpoint(config, tmp_path / "resnet", 0))
    assert {form.method for form in forms_of(model)} == {"FP32", "static-int8", "vanilla"}
    clip = SimulatedClip(model, vanilla(4), streetworld.calibration_set(2))
    data = street_sets(tmp_path, 2, silent).all["drawn classes"]
    inputs = clip_tasks.TaskInputs(model=model, track=silent, templates=())
    reference = SimulatedClip(model, FLOAT, streetworld.calibration_set(2))
    (cosine, _) = inputs.cosines(clip, reference, data, Store(tmp_path / "store"))["cosines"]
    assert 0 < cosine < 1
