"""A bench as bars: the median latency of each contender, one panel per batch size."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmquant.bench.result import BASELINE, BenchResult
from vlmquant.files import write_whole
from vlmquant.output import results
from vlmquant.report.plots import AFTER, BEFORE, QUIET, png
from vlmquant.text import counted

OURS = "bundle-"
VERB = "bench"
FILES = ("bench.json", "bench.png")


def bench_figure(result: BenchResult) -> Figure:
    """Draw median latencies as bars with a whisker to the 95th percentile and the speed-up over torch FP32.

    Raises ValueError when no contender ran.
    """
    names = [row.name for row in result.contenders if row.outcome == "ran"]
    if not names:
        raise ValueError("expected at least one contender that ran")
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(names) + 0.16 * max(len(result.notes) - 1, 0)), layout="constrained")
    panels = figure.subplots(1, len(result.batches), sharey=True, squeeze=False)[0]
    for axes, batch in zip(panels, result.batches, strict=True):
        _panel(axes, result, names, batch)
    panels[0].invert_yaxis()
    environment = result.environment
    figure.suptitle(
        f"{result.model}, {result.subject}: {environment.cpu_model}, {counted(result.threads, 'thread')}",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    if result.notes:
        figure.supxlabel("\n".join(result.notes), fontsize=8, color=QUIET)
    return figure


def bench_png(result: BenchResult) -> bytes:
    """Return `bench_figure` as a PNG file."""
    return png(bench_figure(result))


def write_bench(result: BenchResult, folder: Path, verb: str = VERB) -> None:
    """Write bench.json and the bar chart bench.png into `folder`. Raises DataError where it may not."""
    with results(folder, verb, FILES):
        result.write(folder / "bench.json")
        write_whole(folder / "bench.png", bench_png(result))


def _panel(axes: Axes, result: BenchResult, names: list[str], batch: int) -> None:
    measured = [found for name in names if (found := result.contender(name).at(batch)) is not None]
    medians = np.array([found.median_ms for found in measured])
    tails = np.array([found.p95_ms for found in measured])
    places = np.arange(len(names), dtype=np.float64)
    axes.barh(
        places,
        medians,
        height=0.66,
        color=[AFTER if name.startswith(OURS) else BEFORE for name in names],
        xerr=np.stack([np.zeros(len(names)), tails - medians]),
        error_kw={"ecolor": QUIET, "elinewidth": 1.0, "capsize": 3},
    )
    for place, name, found in zip(places, names, measured, strict=True):
        speedup = "" if found.speedup is None or name == BASELINE else f"   {found.speedup.median:.1f}x"
        axes.text(
            found.p95_ms + 0.015 * tails.max(), place, f"{found.median_ms:.1f} ms{speedup}", va="center", fontsize=9
        )
    axes.set_yticks(places, names)
    axes.set_xlim(0, 1.38 * tails.max())
    axes.set_xlabel(f"ms per batch of {batch}: median, whisker to p95")
    axes.set_title(f"batch {batch}, n = {result.rounds * result.iterations} each", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
