"""Paired comparison: identities that must hold exactly, verdicts, refusals."""

import numpy as np
import pytest
from colour_encoder import ColourEncoder, ConstantEncoder, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmquant.errors import DataError
from vlmquant.metrics.intervals import Interval
from vlmquant.tasks.classification import zero_shot
from vlmquant.tasks.compare import Verdict, compare, compare_metric, compare_outcomes, judge
from vlmquant.tasks.result import Outcomes, load_result, save_result
from vlmquant.tasks.retrieval import retrieval


def outcomes(values: list[float], answers: list[str] | None = None, clusters: list[str] | None = None) -> Outcomes:
    ids = tuple(f"s{i}" for i in range(len(values)))
    return Outcomes(
        ids=ids,
        clusters=tuple(clusters or ids),
        values=np.array(values, dtype=np.float64),
        answers=tuple(answers or [str(value) for value in values]),
    )


def test_flips_by_hand() -> None:
    reference = outcomes([1, 1, 0, 0, 0], ["cat", "dog", "cat", "cat", "owl"])
    candidate = outcomes([0, 1, 1, 0, 0], ["owl", "dog", "dog", "dog", "owl"])
    found = compare_outcomes("top1", candidate, reference)
    assert found.flips.losses == ("s0",)
    assert found.flips.gains == ("s2",)
    assert found.flips.changed_wrong == ("s3",)
    assert found.agreement == 2 / 5
    assert found.p_value == 1.0
    assert found.difference.estimate == 0.0


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60))
@settings(deadline=None, max_examples=40)
def test_the_accounts_of_flips_balance_exactly(pairs: list[tuple[float, float]]) -> None:
    reference, candidate = outcomes([a for a, _ in pairs]), outcomes([b for _, b in pairs])
    found = compare_outcomes("top1", candidate, reference)
    assert found.difference.estimate == (len(found.flips.gains) - len(found.flips.losses)) / len(pairs)
    assert found.flips.gain_mass == len(found.flips.gains)
    assert found.flips.loss_mass == len(found.flips.losses)
    assert found.difference.low <= found.difference.estimate <= found.difference.high


def test_a_model_against_itself_differs_in_nothing() -> None:
    images = [plain("red"), plain("blue"), plain("lime")]
    result = retrieval(ColourEncoder(), images, [["red"], ["red", "blue"], ["blue"]])
    for found in compare(result, result, max_drop_points=100):
        assert found.difference.estimate == 0.0
        assert -1 <= found.difference.low == -found.difference.high < 0  # 3 pictures say little
        assert found.flips.losses == found.flips.gains == found.flips.changed_wrong == ()
        assert found.agreement == 1.0
        assert found.p_value == 1.0
        assert found.verdict is Verdict.WITHIN


@pytest.mark.parametrize(
    ("interval", "clusters", "expected"),
    [
        (Interval(-0.02, -0.03, -0.01), 10_000, Verdict.BEYOND),
        (Interval(-0.002, -0.004, 0.0), 10_000, Verdict.WITHIN),
        (Interval(-0.002, -0.008, 0.0), 10_000, Verdict.UNDECIDED),
        (Interval(0.0, 0.0, 0.0), 599, Verdict.UNDECIDED),
        (Interval(0.0, 0.0, 0.0), 600, Verdict.WITHIN),
    ],
)
def test_verdicts_at_half_a_point(interval: Interval, clusters: int, expected: Verdict) -> None:
    assert judge(interval, 0.005, clusters) is expected


def test_saved_results_compare_like_fresh_ones(tmp_path) -> None:  # type: ignore[no-untyped-def]
    names = ("red", "green", "blue")
    images = [plain("red"), plain("blue"), plain("lime")]
    good = zero_shot(ColourEncoder(), images, [0, 2, 1], names, ["{}"])
    bad = zero_shot(ConstantEncoder(), images, [0, 2, 1], names, ["{}"])
    save_result(good, tmp_path / "runs" / "good.json")
    save_result(bad, tmp_path / "runs" / "bad.json")
    loaded = compare(load_result(tmp_path / "runs" / "bad.json"), load_result(tmp_path / "runs" / "good.json"))
    assert loaded == compare(bad, good)
    assert loaded[0].difference.estimate == pytest.approx(-2 / 3)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["bad.json", "good.json"]


def test_unlike_results_are_refused_and_the_difference_is_named() -> None:
    names = ("red", "green", "blue")
    first = zero_shot(ColourEncoder(), [plain("red")], [0], names, ["{}"])
    second = zero_shot(ColourEncoder(), [plain("red")], [0], names, ["a {}"])
    with pytest.raises(DataError, match="differ in templates"):
        compare(first, second)
    with pytest.raises(DataError, match="unknown metric 'top7'; known: top1"):
        compare_metric(first, first, "top7")
    with pytest.raises(DataError, match="different samples"):
        compare_outcomes("top1", outcomes([1, 0]), outcomes([1]))


def test_a_file_that_is_no_result(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="is not a result"):
        load_result(path)
