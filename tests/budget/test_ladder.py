"""The order of trial, on made-up candidates whose drop depends on how many layers stay float."""

from collections.abc import Callable

import pytest

from vlmquant.budget.ladder import Ladder, Rung, climb
from vlmquant.budget.log import Drop, Tried

LADDER = Ladder(
    first=Rung(name="base"),
    safe=(Rung(name="int8-weights", preset="int8-weights"), Rung(name="fp16", preset="fp16")),
    by_layer=True,
    components=("image", "text"),
)
WORST = tuple(f"layer{i}" for i in range(40))


def made_up(
    inside: Callable[[Rung], bool], drop: Callable[[Rung], float] = lambda step: 1.0
) -> Callable[[Rung], Tried]:
    def try_step(step: Rung) -> Tried:
        points = drop(step)
        return Tried(
            name=step.name,
            recipe={},
            float_layers=len(step.kept_float),
            drop=Drop(metric="top1", points=points, low=points - 1, high=points + 1, samples=10),
            latency_ms=1.0,
            bytes=1,
            inside=inside(step),
            decision="",
            seconds=0.0,
        )

    return try_step


def run(try_step: Callable[[Rung], Tried], rank: Callable[[bool], tuple[str, ...]] = lambda _: WORST) -> list[Tried]:
    return climb(LADDER, try_step, rank, "point estimate")


def test_the_fastest_is_tried_first_and_nothing_after_it_when_it_will_do() -> None:
    def refused(_: bool) -> tuple[str, ...]:
        raise AssertionError("no ranking is needed")

    assert [one.name for one in run(made_up(lambda step: True), refused)] == ["base"]
    assert [one.name for one in run(made_up(lambda step: step.smoothing), refused)] == ["base", "base + smoothing"]


def test_nothing_slower_is_tried_where_all_integers_are_too_slow() -> None:
    tried = climb(LADDER, made_up(lambda step: False), lambda _: WORST, "point estimate", max_latency_ms=0.5)
    assert [one.name for one in tried] == ["base"]


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 11, 16, 20])
def test_bisection_finds_the_fewest_layers_in_float(needed: int) -> None:
    tried = run(made_up(lambda step: len(step.kept_float) >= needed))
    inside = [one.float_layers for one in tried if one.inside]
    if needed <= 16:
        assert min(inside) == needed
        assert len(tried) <= 2 + 2 * needed.bit_length()
    else:
        assert not inside, "half of all layers in float are no longer worth it"


def test_smoothing_stays_only_where_it_helped() -> None:
    seen: list[bool] = []

    def rank(smoothing: bool) -> tuple[str, ...]:
        seen.append(smoothing)
        return WORST

    run(made_up(lambda step: len(step.kept_float) >= 1, lambda step: 2.0 if step.smoothing else 1.0), rank)
    run(made_up(lambda step: len(step.kept_float) >= 1, lambda step: 1.0 if step.smoothing else 2.0), rank)
    assert seen == [False, True]


def test_components_and_float_arithmetic_come_last() -> None:
    tried = run(made_up(lambda step: step.preset == "fp16"))
    assert [one.name for one in tried[-4:]] == ["base, image only", "base, text only", "int8-weights", "fp16"]
    tried = run(made_up(lambda step: step.components == ("image",)))
    assert tried[-1].name == "base, image only"


def test_everything_is_tried_before_giving_up() -> None:
    tried = run(made_up(lambda step: False))
    assert not any(one.inside for one in tried)
    assert len({one.name for one in tried}) == len(tried) == 2 + 5 + 4


def test_a_family_without_layers_goes_through_its_candidates_in_order() -> None:
    mixes = Ladder(first=Rung(name="a"), safe=(Rung(name="b"), Rung(name="c")))

    def refused(_: bool) -> tuple[str, ...]:
        raise AssertionError("no ranking is needed")

    tried = climb(mixes, made_up(lambda step: step.name == "b"), refused, "point estimate")
    assert [one.name for one in tried] == ["a", "b"]
    assert len(climb(mixes, made_up(lambda step: False), refused, "point estimate")) == 3
