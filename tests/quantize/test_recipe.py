import pytest

from vlmquant.errors import RecipeError
from vlmquant.quantize.recipe import RECIPES, ActivationScheme, Recipe, WeightScheme, check_components, get_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_presets_survive_a_round_trip(name: str) -> None:
    assert Recipe.from_dict(RECIPES[name].to_dict()) == RECIPES[name]


def test_an_unknown_preset_lists_what_exists() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe 'w8a9'; known: .*static-int8"):
        get_recipe("w8a9")


def test_unknown_keys_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="'bitz'"):
        Recipe.from_dict({"name": "x", "description": "y", "weights": {"bitz": 8}})
    with pytest.raises(RecipeError, match="'colour'"):
        Recipe.from_dict({"name": "x", "description": "y", "colour": 1})
    with pytest.raises(RecipeError, match="description"):
        Recipe.from_dict({"name": "x"})


@pytest.mark.parametrize("bits", [3, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(RecipeError, match=str(bits)):
        WeightScheme(bits=bits)
    with pytest.raises(RecipeError, match=str(bits)):
        ActivationScheme(bits=bits)


def test_only_static_ranges_need_calibration() -> None:
    assert get_recipe("static-int8").needs_calibration
    assert not get_recipe("dynamic-int8").needs_calibration


def test_keep_float_takes_shell_patterns() -> None:
    recipe = Recipe(name="x", description="y", keep_float=("*.mlp.fc2", "projection"))
    assert recipe.keeps_float("vision.encoder.layers.3.mlp.fc2")
    assert recipe.keeps_float("projection")
    assert not recipe.keeps_float("vision.encoder.layers.3.mlp.fc1")


def test_components_come_back_in_order_and_checked() -> None:
    assert check_components(("text", "image")) == ("image", "text")
    with pytest.raises(RecipeError, match="'audio'"):
        check_components(("audio",))
    with pytest.raises(RecipeError, match="no component"):
        check_components(())
