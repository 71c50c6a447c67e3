"""A sweep of simulated recipes: right scores, each tower encoded once, and going on after a crash."""

import json
from pathlib import Path

import numpy as np
import pytest

from vlmquant.errors import CalibrationError, DataError
from vlmquant.lab.sweep import towers as towers_module
from vlmquant.lab.sweep.latency import Timing
from vlmquant.lab.sweep.plan import SweepPlan
from vlmquant.lab.sweep.point import Point
from vlmquant.lab.sweep.run import Sweep, sweep

PLAN = SweepPlan(recipes=("torch-dynamic",), grid_bits=(8, 4))
# All of it is simulated, so nothing is exported and nothing timed.
UNTIMED = Timing(rounds=0, threads=1)


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every quantization of a tower is added."""
    calls: list[str] = []
    original = towers_module.quantize_tower

    def counting(tower, recipe, inputs, description, track):
        calls.append(description)
        return original(tower, recipe, inputs, description, track)

    monkeypatch.setattr(towers_module, "quantize_tower", counting)
    return calls


@pytest.fixture(scope="module")
def finished(model, labelled, calibration, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return sweep(model, labelled, calibration, PLAN, folder, timing=UNTIMED), folder


def by_names(found: Sweep) -> dict[tuple[str, str], Point]:
    return {(point.image, point.text): point for point in found.points}


def test_every_pair_is_scored_and_kept(finished) -> None:
    found, folder = finished
    assert found.computed == len(found.points) == len(PLAN.pairs()) == 12
    assert len(list((folder / "points").glob("*.json"))) == 12
    assert found.points[0].is_float
    assert found.points[0].scores["top1"].difference.estimate == 0
    assert found.points[0].closeness == 1


def test_a_pair_is_the_product_of_its_towers(finished, model, labelled, calibration) -> None:
    from dataclasses import replace

    from vlmquant.checkpoints.clip.inputs import calibration_inputs
    from vlmquant.quantize.apply import quantize_tower
    from vlmquant.quantize.recipes.presets import get_recipe
    from vlmquant.tasks.classification import zero_shot
    from vlmquant.tasks.templates import get_templates

    eight, four = get_recipe("vanilla-w8a8"), get_recipe("vanilla-w4a4")
    image = quantize_tower(model.image_tower, four, calibration_inputs(model, calibration, "image"), "")
    text = quantize_tower(model.text_tower, eight, calibration_inputs(model, calibration, "text"), "")
    encoder = replace(model, image_tower=image, text_tower=text).encoder()
    expected = zero_shot(encoder, labelled.images, labelled.labels, labelled.class_names, get_templates("openai-7"))
    point = by_names(finished[0])["vanilla-w4a4", "vanilla-w8a8"]
    assert point.scores["top1"].score.estimate == pytest.approx(expected.top1)
    assert point.place == "both"
    assert point.bits == {"image": (4, 4), "text": (8, 8)}


def test_fidelity_is_of_the_tower_that_is_quantized(finished) -> None:
    points = by_names(finished[0])
    assert points["vanilla-w4a4", "float"].fidelity["text_cosine"] == 1
    assert points["vanilla-w4a4", "float"].fidelity["image_cosine"] < 1
    assert points["float", "vanilla-w4a4"].fidelity["image_cosine"] == 1
    assert points["float", "torch-dynamic"].place == "text"


def test_each_tower_is_quantized_once(quantized, model, labelled, calibration, tmp_path: Path) -> None:
    sweep(model, labelled, calibration, PLAN, tmp_path, timing=UNTIMED)
    assert sorted(quantized) == sorted(
        f"{name}, {tower} tower"
        for name in ("torch-dynamic", "vanilla-w8a8", "vanilla-w4a4")
        for tower in ("image", "text")
    )


def test_a_killed_sweep_goes_on_where_it_was(
    quantized, finished, model, labelled, calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = towers_module.quantize_tower

    def dying(tower, recipe, inputs, description, track):
        if recipe.name == "vanilla-w4a4":
            raise KeyboardInterrupt
        return counting(tower, recipe, inputs, description, track)

    monkeypatch.setattr(towers_module, "quantize_tower", dying)
    with pytest.raises(KeyboardInterrupt):
        sweep(model, labelled, calibration, PLAN, tmp_path, timing=UNTIMED)
    kept = len(list((tmp_path / "points").glob("*.json")))
    assert 0 < kept < 12
    monkeypatch.setattr(towers_module, "quantize_tower", counting)
    quantized.clear()
    found = sweep(model, labelled, calibration, PLAN, tmp_path, timing=UNTIMED)
    assert found.computed == 12 - kept
    # Two towers of the width it died at, and the image tower of 8 bits, which the text tower's death came before.
    assert {call.partition(",")[0] for call in quantized} <= {"vanilla-w4a4", "vanilla-w8a8"}
    assert len(quantized) == len(set(quantized)) <= 3
    assert [point.scores for point in found.points] == [point.scores for point in finished[0].points]


def test_a_finished_sweep_computes_nothing(quantized, finished, model, labelled, calibration) -> None:
    found, folder = finished
    again = sweep(model, labelled, calibration, PLAN, folder, timing=UNTIMED)
    assert again.computed == 0
    assert not quantized
    assert again.points == found.points


def test_other_calibration_is_another_point(finished, model, labelled, calibration) -> None:
    from dataclasses import replace

    _, folder = finished
    other = replace(calibration, images=calibration.images[:4])
    plan = SweepPlan(recipes=("torch-dynamic",), components=("text",), grid_bits=(8,))
    again = sweep(model, labelled, other, plan, folder, timing=UNTIMED)
    # Whole-batch ranges and float are measured on nothing, so those two are the same points.
    assert again.computed == len(plan.pairs()) - 2 == 3


def test_a_damaged_point_is_named(model, labelled, calibration, tmp_path: Path) -> None:
    plan = SweepPlan(recipes=("torch-dynamic",), components=("text",), grid_bits=())
    sweep(model, labelled, calibration, plan, tmp_path, timing=UNTIMED)
    path = next((tmp_path / "points").glob("*.json"))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=path.name):
        sweep(model, labelled, calibration, plan, tmp_path, timing=UNTIMED)


def test_calibration_is_asked_for_before_any_work(quantized, model, labelled, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="vanilla-w8a8"):
        sweep(model, labelled, None, PLAN, tmp_path, timing=UNTIMED)
    assert not quantized
    assert not list(tmp_path.iterdir())


def test_json_holds_every_point(finished) -> None:
    content = json.loads(json.dumps(finished[0].to_dict()))
    assert len(content["points"]) == 12
    assert {row["place"] for row in content["points"]} == {"none", "image", "text", "both"}
    assert all(np.isfinite(row["scores"]["top1"]["difference"]["low"]) for row in content["points"])
