import pytest

from vlmquant.errors import RecipeError
from vlmquant.lab.sweep.plan import GRID_REASON, Pair, SweepPlan


def test_pairs_are_float_recipes_and_grid_each_once() -> None:
    plan = SweepPlan(recipes=("static-int8", "vanilla-w8a8"), components=("image", "both"), grid_bits=(8,))
    assert plan.pairs() == (
        Pair("float", "float"),
        Pair("static-int8", "float"),
        Pair("static-int8", "static-int8"),
        Pair("vanilla-w8a8", "float"),
        Pair("vanilla-w8a8", "vanilla-w8a8"),
        Pair("float", "vanilla-w8a8"),
    )


def test_a_grid_of_n_widths_has_all_pairs_of_them_and_float() -> None:
    plan = SweepPlan(recipes=(), grid_bits=(8, 6, 4, 3, 2))
    assert len(plan.pairs()) == 36
    assert {precision.why_simulated for precision in plan.precisions().values()} == {GRID_REASON}


def test_what_no_file_can_run_says_why() -> None:
    precisions = SweepPlan(recipes=("static-int8", "torch-dynamic"), grid_bits=()).precisions()
    assert precisions["static-int8"].why_simulated is None
    assert "torch's dynamic quantization" in (precisions["torch-dynamic"].why_simulated or "")
    assert precisions["torch-dynamic"].bits == (8, 7)


def test_a_named_recipe_of_the_grid_stays_a_file() -> None:
    assert SweepPlan(recipes=("vanilla-w8a8",), grid_bits=(8,)).precisions()["vanilla-w8a8"].why_simulated is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipes": ("int9",)}, "unknown recipe 'int9'"),
        ({"components": ("vision",)}, "unknown component 'vision'"),
        ({"grid_bits": (9,)}, "vanilla-w9a9"),
        ({"recipes": (), "grid_bits": ()}, "nothing to try"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(values, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SweepPlan(**values)
