"""The page of the demonstration, and its table of before and after."""

import numpy as np

from streetworld.videos import truth
from vlmquant.bench.table import circumstances
from vlmquant.bench.table import columns as bench_columns
from vlmquant.bench.table import rows as bench_rows
from vlmquant.bundle.manifest import Manifest
from vlmquant.demo.run import Shown
from vlmquant.metrics.intervals import Interval, bootstrap_mean
from vlmquant.report.bench_chart import bench_png
from vlmquant.report.detection import event_blocks, fact_blocks, key_figures, latency_blocks, run_facts
from vlmquant.report.page import Heading, Page, Picture, Table, Text
from vlmquant.report.plots import BeforeAfter, before_after_png
from vlmquant.tasks.result import Outcomes
from vlmquant.text import counted, megabytes

SUMMARY_COLUMNS = ("what", "float", "INT8", "change")


def summary_rows(shown: Shown) -> list[tuple[str, str, str, str]]:
    """Return the before/after table: speed, size, accuracy with intervals, events."""
    fp32, auto = shown.race.contender("torch-fp32").at(1), shown.race.auto
    ours = None if auto is None else shown.race.contender(auto).at(1)
    rows = []
    if fp32 is not None and ours is not None and ours.speedup is not None:
        times = (f"{fp32.median_ms:.2f} ms", f"{ours.median_ms:.2f} ms", f"{ours.speedup.median:.1f} x as fast")
        rows.append((f"image tower, batch 1: torch float32 / INT8 ({auto})", *times))
    image = shown.report.manifest.components["image"]
    size, before = shown.report.manifest.files[image.file].bytes, shown.race.contender("torch-fp32").bytes_on_disk
    if before is not None:
        change = f"{before / size:.1f} x smaller"
        rows.append(("image tower on disk", megabytes(before), megabytes(size), change))
    for row in shown.comparisons:
        if row.metric in ACCURACY_NAMES:
            low, high = 100 * row.difference.low, 100 * row.difference.high
            change = f"{100 * row.difference.estimate:+.2f} points [{low:+.2f}, {high:+.2f}]"
            name = f"{ACCURACY_NAMES[row.metric]}, n = {row.samples}"
            rows.append((name, f"{100 * row.reference:.1f} %", f"{100 * row.candidate:.1f} %", change))
    return rows


ACCURACY_NAMES = {
    "top1": "zero-shot top-1",
    "image_to_text_r1": "image to text R@1",
    "text_to_image_r1": "text to image R@1",
}


def demo_page(shown: Shown) -> Page:
    """Return the page: before and after, the bench, the video's events, and how all of it was made."""
    detection, manifest = shown.detection, shown.report.manifest
    return Page(
        title="vlmquant: a CLIP made small, fast and still right",
        subtitle="The bundled street CLIP, quantized to INT8, verified, timed, scored and put to work on a video. "
        "It is a demonstration model: it knows drawn street scenes and nothing else.",
        blocks=[
            key_figures(detection),
            Heading("Before and after"),
            Table(columns=SUMMARY_COLUMNS, rows=summary_rows(shown), caption="Changes with 95 % paired intervals."),
            Picture(before_after_png(_measures(shown), "percent"), alt="Accuracy of float and INT8 side by side"),
            Heading("Speed"),
            *(Text(said) for said in shown.race.unsteady),
            Picture(bench_png(shown.race), alt="Median latency of each contender"),
            Table(columns=bench_columns(shown.race), rows=bench_rows(shown.race, 1), caption=circumstances(shown.race)),
            Heading("Events in the video"),
            Text(_found_sentence(shown)),
            *event_blocks(detection, truth(shown.script)),
            *latency_blocks(detection),
            *fact_blocks({**run_facts(detection), "Bundle": _bundle_facts(manifest)}),
        ],
    )


def _measures(shown: Shown) -> list[BeforeAfter]:
    return [
        BeforeAfter(
            label=name,
            n=len(new.outcomes[metric].values),
            before=_percent(old.outcomes[metric]),
            after=_percent(new.outcomes[metric]),
        )
        for new, old in zip(shown.after, shown.before, strict=True)
        for metric, name in ACCURACY_NAMES.items()
        if metric in new.outcomes
    ]


def _percent(outcomes: Outcomes) -> Interval:
    _, clusters = np.unique(np.asarray(outcomes.clusters), return_inverse=True)
    interval = bootstrap_mean(outcomes.values, clusters)
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high)


def _found_sentence(shown: Shown) -> str:
    micro = shown.events.micro
    return (
        f"The script of this video holds {counted(micro.true, 'event')}; {counted(micro.found, 'event')} reported, of "
        f"them in agreement with a true one at a temporal IoU of 0.5: {micro.matched}. F1 {micro.f1:.2f}."
    )


def _bundle_facts(manifest: Manifest) -> dict[str, str]:
    calibration = manifest.calibration or {}
    return {
        "Name": manifest.name,
        "Size": megabytes(manifest.total_bytes),
        "Source weights": str(manifest.source["weights_sha256"]),
        "Calibrated on": f"{calibration.get('images_from')}; {calibration.get('texts_from')}",
        "Cosine to float": ", ".join(
            f"{name} {c.fidelity['cosine_mean']:.5f}" for name, c in manifest.components.items()
        ),
        "MACs in INT8 kernels": "; ".join(
            f"{name}: " + ", ".join(f"{engine} {share:.1%}" for engine, share in c.integer_mac_share.items())
            for name, c in manifest.components.items()
        ),
    }
