"""Pruning: what goes, what is left, and how much less work it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fakes import tiny_blip_folder
from vlmquant import get_recipe, load_model
from vlmquant.build.build import held_apart, quantize_model
from vlmquant.bundle import Manifest, verify
from vlmquant.checkpoints import load_checkpoint
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import CalibrationError, RecipeError
from vlmquant.quantize.apply import quantize_by_damage
from vlmquant.quantize.damage import Judge
from vlmquant.quantize.least_squares import Sums
from vlmquant.quantize.methods.pruning import Level, allocate, prune_tower
from vlmquant.quantize.methods.step import Calibration
from vlmquant.quantize.prunable import MacCount, Unit, macs_of, put_in, units, without_channels
from vlmquant.quantize.recipes.recipe import Recipe, pruned


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def pixels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(nn.functional.interpolate(torch.randn(24, 3, 8, 8, generator=generator), size=(32, 32)).split(8))


@pytest.fixture(scope="module")
def ids() -> list[Tensor]:
    ids = torch.randint(2, 600, (16, 7), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = 639
    return list(ids.split(8))


def test_work_is_counted_as_by_hand(model: ClipModel, pixels: list[Tensor]) -> None:
    tower = model.image_tower
    width, tokens, layers, hidden = 32, 17, 2, 128
    attention = tokens * 4 * width * width + 2 * tokens * tokens * width
    expected = 16 * 3 * 8 * 8 * width + layers * (attention + 2 * tokens * width * hidden) + width * 24
    work = macs_of(tower, pixels[0], units(tower))
    assert work.total == expected
    heads, chunks = (unit for unit in units(tower) if ".0." in unit.owner)
    assert (heads.groups, heads.width) == (2, 16)
    assert work.of_group[heads.reader] * heads.groups == attention
    assert work.of_group[chunks.reader] * chunks.groups == 2 * tokens * width * hidden


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_the_pruned_tower_does_so_much_less_and_the_other_one_stays(
    model: ClipModel, pixels: list[Tensor], share: float
) -> None:
    tower = model.image_tower
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    found = prune_tower(tower, share, Calibration(pixels, "test"))
    whole, left = (macs_of(each, pixels[0], units(each)).total for each in (tower, found))
    assert share <= 1 - left / whole <= share + 0.15
    assert found(pixels[0]).shape == tower(pixels[0]).shape
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    attention: Any = found.get_submodule(units(found)[0].owner)
    assert attention.num_heads * attention.head_dim == attention.out_proj.in_features
    again = prune_tower(tower, share, Calibration(pixels, "test")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in found.state_dict().items())


def test_channels_that_repeat_others_go_without_a_trace(model: ClipModel, pixels: list[Tensor]) -> None:
    tower: Any = load_model(model.folder).image_tower
    mlps = [unit for unit in units(tower) if not unit.heads]
    with torch.inference_mode(False):
        for unit in mlps:  # the second half writes what the first half does
            fc1 = tower.get_submodule(unit.writers[0])
            half = unit.channels // 2
            fc1.weight[half:], fc1.bias[half:] = fc1.weight[:half].clone(), fc1.bias[:half].clone()
    work = macs_of(tower, pixels[0], units(tower))
    share = sum(work.of_group[unit.reader] * unit.groups for unit in mlps) / 2 / work.total
    found = prune_tower(tower, share - 0.05, Calibration(pixels, "test"))
    damage = Judge(tower, pixels).expected - Judge(found, pixels).expected
    alone = prune_tower(model.image_tower, share - 0.05, Calibration(pixels, "test"))
    assert damage.norm() < (Judge(model.image_tower, pixels).expected - Judge(alone, pixels).expected).norm() / 3


def test_what_is_left_makes_up_for_what_went(model: ClipModel, pixels: list[Tensor]) -> None:
    """The fit is nearer to the float tower than the same channels with their own weights."""
    tower, plain = model.image_tower, load_model(model.folder).image_tower
    found = prune_tower(tower, 0.4, Calibration(pixels, "test"))
    for whole, unit in zip(units(tower), units(found), strict=True):
        writer, rows = (each.get_submodule(unit.writers[0]).weight for each in (tower, found))
        kept = torch.tensor([int((writer == row).all(dim=1).nonzero()[0]) for row in rows])
        reader: Any = tower.get_submodule(whole.reader)
        put_in(plain, whole, without_channels(plain, whole, kept, reader.weight[:, kept], reader.bias))
    wanted = Judge(tower, pixels).expected
    fitted, cut = (1 - (Judge(each, pixels).expected * wanted).sum(dim=1).mean() for each in (found, plain))
    assert fitted < cut / 2


def test_text_towers_are_pruned_too(model: ClipModel, ids: list[Tensor]) -> None:
    found = prune_tower(model.text_tower, 0.3, Calibration(ids, "test"))
    whole, left = (macs_of(each, ids[0], units(each)).total for each in (model.text_tower, found))
    assert left <= 0.7 * whole


def test_the_cheapest_levels_are_chosen_within_the_share() -> None:
    channels = torch.arange(4)
    tried = {
        "harmless": [Level(0, channels, 0.0), Level(2, channels[:2], 0.001)],
        "precious": [Level(0, channels, 0.0), Level(2, channels[:2], 0.9)],
    }
    work = MacCount(total=100, of_group={"harmless": 10, "precious": 10}, most_share=0.4)
    plan = allocate(tried, work, 0.2)
    assert {name: level.removed for name, level in plan.items()} == {"harmless": 2, "precious": 0}
    assert allocate(tried, work, 0.0)["harmless"].removed == 0
    assert {level.removed for level in allocate(tried, work, 0.4).values()} == {2}


def test_sums_give_the_least_squares_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 6, generator=generator).double() * torch.tensor([3.0, 1, 1, 1, 1, 1])
    true = torch.randn(2, 6, generator=generator).double()
    sums = Sums(6, 2)
    for part in rows.split(100):
        sums.add(part, part @ true.T + 5)
    weight, bias = sums.fit()
    assert torch.allclose(weight, true, atol=0.1)
    assert torch.allclose(bias, torch.full((2,), 5.0).double(), atol=0.1)
    assert torch.allclose(sums.covariance, torch.cov(rows.T, correction=0), atol=1e-9)


def test_what_cannot_be_pruned_is_refused(model: ClipModel, pixels: list[Tensor]) -> None:
    with pytest.raises(RecipeError, match=r"nothing: prune 0.3 is more than .* make up, at most 0.00; prune less"):
        prune_tower(nn.Linear(3, 3), 0.3, Calibration([torch.randn(2, 3)], "nothing"))
    with pytest.raises(RecipeError, match=r"image: prune 0.95 is more than .* at most 0.\d\d; prune less, or other"):
        prune_tower(model.image_tower, 0.95, Calibration(pixels, "image"))
    with pytest.raises(CalibrationError, match="empty"):
        prune_tower(model.image_tower, 0.3, Calibration([], "test"))
    for share in (-0.1, 1.0, True):
        with pytest.raises(RecipeError, match="prune is a share of the work from 0 to below 1"):
            replace(get_recipe("static-int8"), prune=share)


def test_a_recipe_with_pruning_is_named_measured_and_read_back(model: ClipModel, pixels: list[Tensor]) -> None:
    recipe = pruned(get_recipe("static-int8"), 0.3)
    assert recipe.name == "static-int8-pruned-30"
    assert pruned(recipe, None) is pruned(recipe, 0.3) is recipe
    with pytest.raises(RecipeError, match=r"has prune 0.3 and not 0.1; give one"):
        pruned(recipe, 0.1)
    assert replace(get_recipe("dynamic-int8"), prune=0.1).needs_calibration
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert "prune" not in get_recipe("static-int8").to_dict()
    tower, carried_out = quantize_by_damage(model.image_tower, recipe, pixels, "test")
    assert carried_out.prune == 0.3
    assert carried_out.outliers is None
    whole: Unit = units(model.image_tower)[1]
    integers = tower.get_submodule(whole.reader).get_buffer("integers")
    assert len(integers) < whole.channels


def test_a_blip_is_pruned_in_its_mlps(tmp_path: Path, calibration: CalibrationSet) -> None:
    model = load_checkpoint(tiny_blip_folder(tmp_path / "blip", "captioning"))
    for component in model.components:
        assert not any(unit.heads for unit in units(model.tower(component)))
    more = replace(calibration, images=tuple(calibration.images) * 4)
    whole, smaller = (
        quantize_model(model, pruned(get_recipe("static-int8"), share), more, tmp_path / f"{share}")
        for share in (None, 0.2)
    )
    for graph in ("vision", "decoder"):
        assert (smaller / f"{graph}.onnx").stat().st_size < (whole / f"{graph}.onnx").stat().st_size
    assert {row.component for row in verify(smaller).rows} == set(Manifest.read(smaller).components)


def test_a_pruned_bundle_is_judged_on_inputs_it_was_not_fitted_to(model: ClipModel, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = tuple(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(48))
    calibration = CalibrationSet(images, ("a cat", "a dog runs", "two birds on a wire"), "noise", "here")
    recipe = pruned(get_recipe("static-int8"), 0.3)
    prepared = model.prepare(calibration)
    (image,) = [part for part in held_apart(prepared, {"image": recipe}).parts if part.component == "image"]
    assert (sum(map(len, image.inputs)), sum(map(len, image.judged))) == (40, 8)
    assert not any(torch.equal(one, other) for one in image.inputs for other in image.judged)
    assert held_apart(prepared, {"image": get_recipe("static-int8")}).parts == prepared.parts
    few = CalibrationSet(images[:8], calibration.texts, "noise", "here")
    with pytest.raises(CalibrationError, match="image has one batch of 8 or less, give at least 16"):
        quantize_model(model, recipe, few, tmp_path / "bundle", components=("image",))
    with pytest.raises(RecipeError, match=r"^text: prune 0.95 is more than"):
        quantize_model(model, {"text": pruned(get_recipe("static-int8"), 0.95)}, calibration, tmp_path / "bundle")
