import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vlmquant.metrics.intervals import Interval
from vlmquant.report.plots import BeforeAfter, before_after_figure, before_after_png, latency_figure, latency_png

MEASURES = (
    BeforeAfter(label="zero-shot", n=1000, before=Interval(91.0, 89.0, 93.0), after=Interval(90.5, 88.5, 92.5)),
    BeforeAfter(label="retrieval", n=5000, before=Interval(41.0, 39.0, 43.0), after=Interval(41.2, 39.2, 43.2)),
)


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_latency_lines_are_the_median_the_95th_percentile_and_the_maximum():
    latency = np.arange(1.0, 102.0)
    figure = latency_figure(np.arange(101) / 5, latency)
    assert legend_texts(figure) == ["median 51.0 ms", "p95 96.0 ms", "max 101.0 ms"]
    axes = figure.axes[0]
    assert "(s)" in axes.get_xlabel()
    assert "(ms" in axes.get_ylabel()
    assert axes.get_title(loc="left") == "n = 101 frames"
    assert axes.get_ylim()[0] == 0


def test_one_frame_is_enough():
    assert latency_png(np.array([0.0]), np.array([3.0])).startswith(b"\x89PNG")


@pytest.mark.parametrize(("times", "latency"), [((0,), (0,)), ((3,), (2,)), ((2, 2), (2, 2))])
def test_latencies_must_belong_to_frames(times, latency):
    with pytest.raises(ValueError, match=r"expected \(n,\)"):
        latency_figure(np.zeros(times), np.zeros(latency))


def test_bars_have_the_estimates_and_their_intervals():
    figure = before_after_figure(MEASURES, "percent", "float", "INT8")
    axes = figure.axes[0]
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [91.0, 41.0, 90.5, 41.2]
    assert legend_texts(figure) == ["float", "INT8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["zero-shot\nn = 1,000", "retrieval\nn = 5,000"]
    assert axes.get_xlabel().startswith("percent")
    ends = [segment[:, 0] for lines in axes.collections for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [(89, 93), (39, 43), (88.5, 92.5), (39.2, 43.2)])


def test_no_measure_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        before_after_png((), "percent")


def test_charts_are_png_files_wide_enough_to_read():
    assert Image.open(io.BytesIO(before_after_png(MEASURES, "percent"))).width >= 1200
    assert Image.open(io.BytesIO(latency_png(np.arange(5.0), np.ones(5)))).width >= 1200


def test_drawing_starts_no_window_system():
    code = "import sys, vlmquant.report.plots; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_package_itself_imports_no_chart_library():
    code = "import sys, vlmquant.report; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
