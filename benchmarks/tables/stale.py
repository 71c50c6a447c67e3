"""What a table must say of its files: that older code made them, or presets that are other ones today."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.results import preset_hashes
from benchmarks.tables.format import load
from vlmquant.errors import RecipeError
from vlmquant.quantize.recipes.presets import RECIPES
from vlmquant.quantize.recipes.recipe import Recipe


def remarks(files: Sequence[str]) -> str:
    """Return a paragraph on the files that today's code might not make again; "" where all are today's."""
    said = [f"`{file}.json`: {why}" for file in files if (why := why_stale(load(file)))]
    return f"\n\nNot made by today's code: {'; '.join(said)}." if said else ""


def why_stale(result: Mapping[str, Any]) -> str:
    """Return why today's code might not give this result, "" where its code and presets are known and the same.

    A preset counts where its name is in the result.
    """
    recorded = result.get("presets")
    if recorded is None:
        changed = {recipe["name"] for recipe in _recipes_in(result) if not _is_todays(recipe)}
    else:
        today = preset_hashes()
        changed = {name for name in _names_in(result) if recorded.get(name) != today[name]}
    if changed:
        return f"other forms of {', '.join(sorted(changed))}"
    return "" if result.get("code") else "the file names no commit"


def _is_todays(values: Mapping[str, Any]) -> bool:
    try:
        return Recipe.from_dict(dict(values)) == RECIPES.get(values["name"])
    except (RecipeError, TypeError):
        return False


def _recipes_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every recipe with a preset's name that stands anywhere in a result."""
    if isinstance(value, Mapping):
        if isinstance(value.get("weights"), Mapping) and value.get("name") in RECIPES:
            yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _recipes_in(one)


def _names_in(result: Mapping[str, Any]) -> set[str]:
    text = json.dumps({key: value for key, value in result.items() if key != "presets"})
    return {name for name in RECIPES if f'"{name}"' in text}
