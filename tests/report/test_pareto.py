import numpy as np
import pytest

from vlmquant.metrics.intervals import Interval
from vlmquant.report.pareto import Candidate, best, pareto_figure, pareto_front


def brute_force(costs):
    return [not any((other <= row).all() and (other < row).any() for other in costs) for row in costs]


def candidate(label, size, latency, score, fidelity=0.9, n=100):
    interval = None if score is None else Interval(score, score - 0.05, score + 0.05)
    return Candidate(label=label, size_bytes=size, latency_ms=latency, score=interval, fidelity=fidelity, n=n)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_the_front_equals_brute_force(columns, seed):
    costs = np.random.default_rng(seed).integers(0, 6, (40, columns)).astype(float)
    assert pareto_front(costs).tolist() == brute_force(costs)


def test_a_front_by_hand():
    costs = np.array([[1.0, 5.0], [2.0, 3.0], [3.0, 3.0], [4.0, 1.0], [4.0, 1.0], [5.0, 5.0]])
    assert pareto_front(costs).tolist() == [True, True, False, True, True, False]


def test_one_and_no_model():
    assert pareto_front(np.array([[3.0, 3.0]])).tolist() == [True]
    assert pareto_front(np.empty((0, 2))).tolist() == []


def test_what_was_not_measured_is_on_no_front():
    with pytest.raises(ValueError, match="finite"):
        pareto_front(np.array([[1.0, np.nan]]))


def test_models_are_compared_in_what_all_of_them_have():
    small, large = candidate("small", 10, None, 0.8), candidate("large", 20, 5.0, 0.8)
    assert best([small, large]).tolist() == [True, False]
    better = candidate("better", 20, 5.0, 0.9)
    assert best([small, better]).tolist() == [True, True]


def test_models_of_which_nothing_is_known_all_stay():
    nothing = [candidate(name, None, None, None, None) for name in "ab"]
    assert best(nothing).tolist() == [True, True]


def test_every_panel_has_axes_units_and_n():
    figure = pareto_figure([candidate("a", 2**20, 3.0, 0.5), candidate("b", 2**21, 2.0, 0.6)], "top-1")
    assert len(figure.axes) == 4
    labels = {(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes}
    assert ("size on disk (MiB)", "top-1 (%)") in labels
    assert ("latency of one image, median (ms)", "mean cosine to the float model") in labels
    assert all(axes.get_title(loc="left") == "n = 100; 2 models" for axes in figure.axes)
    drawn = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(drawn, [[1, 50], [2, 60]])


def test_what_nobody_measured_gets_no_panel():
    figure = pareto_figure([candidate("a", 2**20, None, 0.5), candidate("b", 2**21, None, 0.6)], "top-1")
    assert [axes.get_xlabel() for axes in figure.axes] == ["size on disk (MiB)"] * 2
    with pytest.raises(ValueError, match="at least one cost"):
        pareto_figure([candidate("a", None, None, 0.5)], "top-1")


def test_points_too_near_for_two_labels_share_one():
    found = [candidate("a", 2**20, 3.0, 0.5), candidate("b", 2**21, 2.0, 0.6), candidate("c", 2**21, 2.0, 0.6)]
    texts = {text.get_text() for text in pareto_figure(found, "top-1").axes[0].texts}
    assert texts == {"1", "2, 3"}


@pytest.mark.parametrize(("fidelity", "score"), [((0.9991, 1.0), (0.995, 0.9)), ((1.0, 1.0), (1.0, 1.0))])
def test_no_axis_reaches_beyond_what_there_can_be(fidelity, score):
    models = [
        Candidate(
            label=str(i),
            size_bytes=(i + 1) * 2**20,
            latency_ms=3.0,
            score=Interval(score[i], score[i] - 0.05, 1.0),
            fidelity=fidelity[i],
            n=100,
        )
        for i in range(2)
    ]
    for axes in pareto_figure(models, "top-1").axes:
        low, high = axes.get_ylim()
        assert low < high <= (100 if axes.get_ylabel() == "top-1 (%)" else 1)
