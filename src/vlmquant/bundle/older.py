"""Manifests of schema 1 and 2 as they would be in schema 3.

Version 1 knew encoders only and said nothing of outliers. Version 2 had a `kind`, `logit_scale` or `generation` in
place of the head, and one recipe for an encoder, or one `by_graph`, beside each component's precision.
"""

from collections.abc import Mapping
from typing import Any

HEADS = {"captioning": "captioner", "vqa": "answerer", "matching": "matcher"}
"""What a `kind` other than "encoder" is now."""


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a manifest of schema 1 or 2 as those of schema 3; the types in them are not checked.

    Raises KeyError, TypeError, ValueError or AttributeError where they are not of such a manifest.
    """
    kept = {name: values[name] for name in ("name", "source", "calibration", "requires_any_of", "files", "tools")}
    kind = values.get("kind", "encoder")
    if kind == "encoder":
        head = {"type": "dual-encoder", "logit_scale": values["logit_scale"]}
    else:
        head = {"type": HEADS.get(kind, kind), **values["generation"]}
    known = {*kept, "kind", "generation", "logit_scale", "recipe", "components", "schema_version"}
    unknown = {name: values[name] for name in values if name not in known}
    components = {
        name: _component(name, component, values["recipe"]) for name, component in values["components"].items()
    }
    return {**kept, **unknown, "schema_version": 3, "head": head, "components": components}


def _component(name: str, values: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return one component with a recipe of its own; that of an encoder held what was done to either tower."""
    old = ("precision", "smoothed", "kept_float")
    component = {key: value for key, value in values.items() if key not in old}
    if values["precision"] == "float32":
        own = None
    elif "by_graph" in recipe:
        own = recipe["by_graph"][name]
    else:
        own = {
            **recipe,
            "name": values["precision"],
            "smoothing": values.get("smoothed", recipe["smoothing"]),
            "keep_float": list(values.get("kept_float", recipe["keep_float"])),
        }
    return {**component, "recipe": own}
