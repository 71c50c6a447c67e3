import pytest

from vlmquant.errors import RecipeError
from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe import Recipe, check_components, check_patterns, simulation_only
from vlmquant.quantize.recipes.schemes import ActivationScheme, OutlierHandling, SiteBits, WeightScheme


@pytest.mark.parametrize("name", RECIPES)
def test_presets_survive_a_round_trip(name: str) -> None:
    written = RECIPES[name].to_dict()
    assert Recipe.from_dict(written) == RECIPES[name]
    assert "steps" not in written, "files of before there were any read the same"


def test_steps_survive_a_round_trip() -> None:
    recipe = Recipe(name="x", description="y", steps=("mine",))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.needs_calibration, "nobody knows yet what the step measures"


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("smoothing", "false", "'false'"),
        ("twin", 1, "got 1"),
        ("keep_float", "*.fc2", "keep_float must be a list"),
        ("float_inputs", [8], "float_inputs must be .*8"),
        ("steps", "mine", "'mine'"),
        ("overrides", {"pattern": "*"}, "overrides must be a list"),
        ("overrides", ["*"], "SiteBits must be an object"),
        ("weights", "int8", "'int8'"),
        ("activations", 8, "got 8"),
        ("outliers", True, "got True"),
        ("weights", {"bits": 8.0}, "8.0"),
        ("activations", {"bits": "8"}, "'8'"),
        ("token_table_bits", 4, "got 4"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(key: str, value: object, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        Recipe.from_dict({"name": "x", "description": "y", key: value})


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


@pytest.mark.parametrize("bits", [1, 9, 15])
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


def test_overrides_change_the_width_of_the_sites_they_match() -> None:
    recipe = Recipe(
        name="x",
        description="y",
        overrides=(SiteBits(pattern="*fc2", weights=4), SiteBits(pattern="3.fc2", weights=6, activations=5)),
    )
    assert (recipe.weights_at("3.fc1").bits, recipe.weights_at("2.fc2").bits, recipe.weights_at("3.fc2").bits) == (
        8,
        4,
        6,
    )
    found = [recipe.activations_at(name) for name in ("2.fc2", "3.fc2")]
    assert [scheme.bits for scheme in found if scheme] == [8, 5]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match="changes nothing"):
        SiteBits(pattern="*")


def test_a_pattern_that_matches_nothing_is_named() -> None:
    recipe = Recipe(name="x", description="y", keep_float=("*fc1", "*.fc3"))
    with pytest.raises(RecipeError, match=r"'\*\.fc3' matches no layer"):
        check_patterns(recipe, ["mlp.fc1", "mlp.fc2"])


def test_weight_only_recipes_need_no_calibration_unless_they_round_by_inputs() -> None:
    assert not get_recipe("int8-weights").needs_calibration
    assert get_recipe("int4-weights").needs_calibration


def test_what_no_engine_runs_says_so() -> None:
    for name in ("static-int8", "dynamic-int8", "w4a8", "int4-weights", "vanilla-w4a4"):
        assert simulation_only(get_recipe(name)) is None
    assert "batch" in str(simulation_only(get_recipe("torch-dynamic")))
    assert "two steps" in str(simulation_only(get_recipe("twin-hessian-w6a6")))
    assert "16-bit" in str(simulation_only(Recipe(name="x", description="y", weights=WeightScheme(bits=16))))


def test_settings_that_exclude_each_other_are_refused() -> None:
    dynamic = ActivationScheme(ranges="per-token")
    with pytest.raises(RecipeError, match="twin needs static"):
        Recipe(name="x", description="y", activations=dynamic, twin=True)
    with pytest.raises(RecipeError, match="per-token ranges need one weight scale"):
        Recipe(name="x", description="y", activations=dynamic, weights=WeightScheme(granularity="group"))
    half = WeightScheme(bits=16, number="float16")
    for wanted in ({"smoothing": True}, {"bias_correction": True}, {"outliers": OutlierHandling()}):
        with pytest.raises(RecipeError, match="float16 weights are rounded as they are"):
            Recipe(name="x", description="y", weights=half, activations=None, **wanted)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="'octave'"):
        WeightScheme(granularity="octave")  # type: ignore[arg-type]


def test_a_preset_is_found_by_its_former_name() -> None:
    assert get_recipe("static-int8-7bit-weights") is get_recipe("static-int8")
