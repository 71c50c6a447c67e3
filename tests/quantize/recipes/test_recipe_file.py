"""Recipes from files; the ways to fail are in tests/cli/test_bad_input.py."""

import json
from pathlib import Path

import pytest

from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe_file import read_recipe
from vlmquant.quantize.recipes.schemes import SiteBits


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_written_as_json_comes_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(get_recipe(name).to_dict()))
    assert read_recipe(str(path)) == get_recipe(name)


def test_toml_has_the_same_fields_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "x"\ndescription = "y"\n[weights]\nbits = 6\n[[overrides]]\npattern = "*.fc2"\nweights = 8\n'
    )
    recipe = read_recipe(str(path))
    assert (recipe.weights.bits, recipe.overrides) == (6, (SiteBits(pattern="*.fc2", weights=8),))
    assert recipe.activations is not None
    assert recipe.activations.bits == 8


def test_a_name_without_suffix_is_a_preset() -> None:
    assert read_recipe("static-int8") == get_recipe("static-int8")
