"""A search over tiny BLIPs; the float model's own captions are the truth, so that every other word loses points."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import tiny_blip_folder
from streetworld.questions import write_questions
from vlmquant.budget.budget import Budget
from vlmquant.budget.by_component import ComponentCandidates
from vlmquant.budget.log import NothingInsideError, SearchLog
from vlmquant.budget.search import quantize_within_budget, search
from vlmquant.budget.yardstick import halves, subset
from vlmquant.bundle import Manifest, open_bundle
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.data.folders import read_flat_folder
from vlmquant.data.reader import read
from vlmquant.data.sets import CaptionedImages, QuestionedImages
from vlmquant.errors import BudgetError, CalibrationError, DataError, RecipeError
from vlmquant.models.generate import GenerationOptions

OPTIONS = GenerationOptions(max_new_tokens=8, min_new_tokens=8)
COARSE = {"4 bits": ("w4a8", "w4a8"), "4-bit vision": ("w4a8", "int8-weights")}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> BlipModel:
    return load_blip(tiny_blip_folder(tmp_path_factory.mktemp("blip") / "captions", "captioning"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, captioner: BlipModel) -> CaptionedImages:
    folder = tmp_path_factory.mktemp("captioned")
    lines = ["image,caption"]
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        lines.append(f'{index}.png,"{captioner.runner(OPTIONS).caption([pixels])[0]}"')
    (folder / "captions.csv").write_text("\n".join(lines))
    found = read(folder)
    assert isinstance(found, CaptionedImages)
    return found


@pytest.fixture(scope="module")
def few(calibration: CalibrationSet) -> CalibrationSet:
    return replace(calibration, images=calibration.images[:2])


def test_the_first_candidate_inside_is_written_with_the_log(
    captioner: BlipModel, captioned: CaptionedImages, few: CalibrationSet, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    log = quantize_within_budget(captioner, few, captioned, Budget(100, "bleu-4"), output, options=OPTIONS)
    assert [one.name for one in log.tried] == ["static-int8"] == [log.chosen]
    assert log.tried[0].drop.metric == "BLEU-4"
    assert log.tried[0].drop.samples == 10
    assert log.held_out is not None
    assert log.held_out.samples == 10
    assert log.confirmed == "yes"
    manifest = Manifest.read(output)
    assert {part.precision for part in manifest.components.values()} == {"static-int8"}
    assert "search.json" in manifest.files
    assert json.loads((output / "search.json").read_text()) == json.loads(json.dumps(log.to_dict()))
    assert open_bundle(output, options=OPTIONS).caption([captioned.images[0]])[0]
    assert list(tmp_path.iterdir()) == [output], "nothing of the search is left behind"


def test_an_impossible_budget_names_the_nearest_and_writes_nothing(
    captioner: BlipModel, captioned: CaptionedImages, few: CalibrationSet, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="none of 2 candidates is inside 0 points of cider") as caught:
        search(
            ComponentCandidates(model=captioner, calibration=few, mixes=COARSE, options=OPTIONS),
            captioned,
            Budget(0),
            tmp_path / "b",
        )
    assert isinstance(caught.value, NothingInsideError)
    log: SearchLog = caught.value.log
    assert [one.name for one in log.tried] == list(COARSE)
    assert all(one.drop.points > 0 and not one.inside for one in log.tried)
    assert f"the nearest is {log.nearest().name!r} with {log.nearest().drop.points:.2f}" in str(caught.value)
    assert caught.value.exit_code == 6
    assert log.chosen is None
    assert not list(tmp_path.iterdir())


def test_answers_are_searched_over_too(few: CalibrationSet, tmp_path: Path) -> None:
    model = load_blip(tiny_blip_folder(tmp_path / "vqa", "vqa"))
    write_questions(tmp_path / "asked", count=20)
    data = read(tmp_path / "asked")
    safe = {"8-bit weights": ("int8-weights", "int8-weights")}
    family = ComponentCandidates(model=model, calibration=None, mixes=safe, options=GenerationOptions(max_new_tokens=2))
    log = search(family, data, Budget(1), tmp_path / "b")
    assert (log.metric, log.chosen) == ("vqa_accuracy", "8-bit weights")
    assert log.tried[0].drop.samples == 40, "four questions about each of ten pictures"


def test_questions_go_with_their_pictures(tmp_path: Path) -> None:
    write_questions(tmp_path, count=20)
    data = read(tmp_path)
    assert isinstance(data, QuestionedImages)
    for half in halves(data).values():
        assert isinstance(half, QuestionedImages)
        for question in half.questions:
            (whole,) = [other for other in data.questions if other.id == question.id]
            assert half.ids[question.image_index] == data.ids[whole.image_index]
    assert len(subset(data, range(20)).ids) == 20


def test_mistakes_are_told_before_any_work(
    captioner: BlipModel, captioned: CaptionedImages, few: CalibrationSet, tmp_path: Path
) -> None:
    output = tmp_path / "b"
    for metric, complaint in (("vqa_accuracy", "vqa_accuracy.*bleu-4, cider"), ("meteor", "meteor.*bleu-4, cider")):
        with pytest.raises(DataError, match=complaint):
            quantize_within_budget(captioner, few, captioned, Budget(1, metric), output)
    bare = read_flat_folder(Path(captioned.images.refs[0].path).parent)
    with pytest.raises(DataError, match=r"cider is not possible on .* it has no captions"):
        quantize_within_budget(captioner, few, bare, Budget(1), output)
    with pytest.raises(CalibrationError, match="static-int8"):
        quantize_within_budget(captioner, None, captioned, Budget(1), output)
    with pytest.raises(RecipeError, match="leave recipe and components out"):
        quantize_within_budget(captioner, few, captioned, Budget(1), output, components=("vision",))
    matcher = replace(captioner, kind="matching")
    with pytest.raises(DataError, match="is a BLIP for matching"):
        quantize_within_budget(matcher, few, captioned, Budget(1), output)
    assert not list(tmp_path.iterdir())
