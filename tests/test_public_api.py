"""The flat public face: exactly these names, each of them there."""

import pytest

import vlmquant

EXPECTED = {
    "Budget",
    "CalibrationSet",
    "Encoder",
    "EventQuery",
    "EventRule",
    "GenerationOptions",
    "Manifest",
    "RECIPES",
    "Recipe",
    "VlmQuantError",
    "detect",
    "get_recipe",
    "layer_sensitivity",
    "load_blip",
    "load_model",
    "open_bundle",
    "quantize_model",
    "quantize_within_budget",
    "retrieval",
    "verify",
    "watch",
    "write_detection",
    "zero_shot",
}


def test_the_public_names_are_these() -> None:
    assert set(vlmquant.__all__) == EXPECTED
    assert len(EXPECTED) <= 25


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    assert getattr(vlmquant, name) is not None
    assert name == "RECIPES" or getattr(vlmquant, name).__doc__


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(AttributeError, match="open_bundle"):
        vlmquant.open_bundel  # noqa: B018
