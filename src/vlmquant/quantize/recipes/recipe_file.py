"""Recipes that users write themselves: a JSON or TOML file with the fields of `Recipe`."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmquant.errors import RecipeError
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe

_PARSERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}


def read_recipe(name_or_path: str) -> Recipe:
    """Return the preset of this name, or the recipe in the file of this name when it ends in .json or .toml.

    A key that is left out has the default of `Recipe`. TOML has no null, so float activations need a JSON file.
    Raises RecipeError for an unknown preset, a file that is missing or is not a recipe, and a field out of range.
    """
    path = Path(name_or_path)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        return get_recipe(name_or_path)
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe file {name_or_path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:  # what both parsers raise, and text that is not UTF-8
        raise RecipeError(f"recipe file {name_or_path!r} is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe file {name_or_path!r} holds a {type(content).__name__}, expected an object")
    try:
        return Recipe.from_dict(content)
    except (RecipeError, TypeError, AttributeError) as error:
        raise RecipeError(f"recipe file {name_or_path!r}: {error}") from error
