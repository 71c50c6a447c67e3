from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import CalibrationError, ModelError, RecipeError
from vlmquant.progress import silent
from vlmquant.quantize.prunable import macs_of, units
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe, pruned
from vlmquant.quantize.recipes.schemes import ActivationScheme, WeightScheme
from vlmquant.quantize.recovery.recover import Recovered, recover
from vlmquant.quantize.recovery.tuning import RecoverySettings, Student

SETTINGS = RecoverySettings(steps=40, batch=16, device="cpu")
RECIPE = Recipe(
    name="x",
    description="y",
    weights=WeightScheme(bits=3),
    activations=ActivationScheme(bits=4),
    bias_correction=True,
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def inputs() -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 600, (32, 7), generator=generator)
    ids[:, -1] = 639
    pixels = torch.nn.functional.interpolate(torch.randn(48, 3, 8, 8, generator=generator), size=(32, 32))
    return {"image": list(pixels.split(8)), "text": list(ids.split(8))}


@pytest.fixture(scope="module")
def recovered(model: ClipModel, inputs: dict[str, list[Tensor]]) -> Recovered:
    return recover(model, RECIPE, inputs, SETTINGS)


def test_tuning_takes_error_off_inputs_that_it_never_saw(recovered: Recovered) -> None:
    before, after = recovered.facts["loss_before"], recovered.facts["loss_after"]
    assert after["image"] < 0.8 * before["image"]
    assert after["text"] < 0.8 * before["text"]
    assert recovered.facts["steps"] == 40
    assert recovered.facts["device"] == "cpu"


def test_the_teacher_and_the_token_table_stay_as_they_were(
    recovered: Recovered, model: ClipModel, tiny_checkpoint: Path
) -> None:
    untouched = load_model(tiny_checkpoint).image_tower.state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in model.image_tower.state_dict().items())
    table = "text_model.embeddings.token_embedding.weight"
    assert torch.equal(recovered.model.text_tower.state_dict()[table], model.text_tower.state_dict()[table])
    tuned = recovered.model.image_tower.state_dict()
    assert any(not torch.equal(value, untouched[name]) for name, value in tuned.items())
    assert not any(parameter.requires_grad for parameter in recovered.model.image_tower.parameters())


def test_the_recipe_that_comes_back_does_not_move_the_weights_again(recovered: Recovered) -> None:
    assert recovered.recipe == replace(RECIPE, bias_correction=False)


def test_a_stopped_run_goes_on_and_another_one_is_refused(
    model: ClipModel, inputs: dict[str, list[Tensor]], tmp_path: Path
) -> None:
    images = {"image": inputs["image"]}
    first = recover(model, RECIPE, images, replace(SETTINGS, steps=3), work=tmp_path)
    again = recover(model, RECIPE, images, replace(SETTINGS, steps=3), work=tmp_path)
    assert again.facts["steps"] == 3
    assert again.facts["loss_after"] == first.facts["loss_after"], "nothing was left to do"
    with pytest.raises(CalibrationError, match="another model, recipe, data or settings"):
        recover(model, get_recipe("w4a8"), images, replace(SETTINGS, steps=3), work=tmp_path)


@pytest.mark.parametrize("name", ["dynamic-int8", "twin-hessian-w4a4", "int4-weights"])
def test_every_kind_of_rounding_lets_gradients_through(
    model: ClipModel, inputs: dict[str, list[Tensor]], name: str
) -> None:
    found = recover(model, get_recipe(name), {"image": inputs["image"]}, replace(SETTINGS, steps=2))
    tuned = found.model.image_tower.state_dict()
    untouched = model.image_tower.state_dict()
    moved = [key for key, value in tuned.items() if not torch.equal(value, untouched[key])]
    assert any(key.endswith("fc1.weight") for key in moved)
    assert any(key.endswith("embeddings.position_embedding.weight") for key in moved)


def test_bad_requests_are_named(model: ClipModel, inputs: dict[str, list[Tensor]]) -> None:
    with pytest.raises(RecipeError, match="float16"):
        recover(model, get_recipe("fp16"), inputs)
    with pytest.raises(CalibrationError, match="at least 16 images"):
        recover(model, RECIPE, {"image": inputs["image"][:1]})
    with pytest.raises(RecipeError, match="steps"):
        RecoverySettings(steps=0)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda"):
            recover(model, RECIPE, inputs, replace(SETTINGS, device="cuda"))


def test_kernels_of_several_pixels_are_tuned_within_the_7_bits_that_they_get() -> None:
    tower = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    batch = torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(name="x", description="y", weights=WeightScheme(), activations=ActivationScheme())
    student = Student(tower, recipe, [batch], torch.device("cpu"), silent)
    student.refresh()
    weight = student.latent.get_submodule("0").get_parameter("weight")
    largest = weight.detach().flatten(1).abs().amax(1)[:, None, None, None]
    with torch.no_grad():
        weight *= 3  # of the scales that were taken before, no integer stands for more than what was the largest
        beyond = student(batch)
        weight.copy_(weight.clamp(-largest, largest))
        assert torch.equal(student(batch), beyond)


def test_a_pruned_copy_is_taught_by_the_whole_model(model: ClipModel, inputs: dict[str, list[Tensor]]) -> None:
    found = recover(model, pruned(RECIPE, 0.3), inputs, SETTINGS)
    for component in ("image", "text"):
        assert found.facts["loss_after"][component] < found.facts["loss_before"][component]
        whole, tuned = (each.tower(component) for each in (model, found.model))
        batch = inputs[component][0]
        left = macs_of(tuned, batch, units(tuned)).total / macs_of(whole, batch, units(whole)).total
        assert 0.5 < left <= 0.7
    assert found.facts["pruned"] == 0.3
    assert found.recipe.prune == 0, "what is left of the recipe prunes no second time"
