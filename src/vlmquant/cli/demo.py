"""`vlmquant demo`: every verb on the bundled model, offline, ending with one page."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from vlmquant.bench import BenchResult, BenchTargets, bench
from vlmquant.bench.table import columns as bench_columns
from vlmquant.bench.table import rows as bench_rows
from vlmquant.bundle import VerifyReport, open_bundle, verify
from vlmquant.bundle.manifest import Manifest
from vlmquant.cli import show
from vlmquant.cli.bench import write as write_bench
from vlmquant.cli.quantize import print_manifest
from vlmquant.metrics.intervals import Interval, bootstrap_mean
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import Encoder
from vlmquant.progress import Track
from vlmquant.tasks.compare import Comparison, compare
from vlmquant.tasks.result import Outcomes, TaskResult

if TYPE_CHECKING:
    from vlmquant.report.page import Page
    from vlmquant.report.plots import BeforeAfter
    from vlmquant.streetworld.dataset import RetrievalSet, ZeroShotSet
    from vlmquant.streetworld.videos import VideoScript
    from vlmquant.tasks.events import EventScores
    from vlmquant.video.detect import Detection

RECIPE = "static-int8"
SCORED_IMAGES = 500
VIDEO_SEED = 0
VIDEO_SECONDS = 40.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Everything that the demo found out."""

    report: VerifyReport
    race: BenchResult
    before: Sequence[TaskResult]
    after: Sequence[TaskResult]
    detection: "Detection"
    script: "VideoScript"
    events: "EventScores"

    @property
    def comparisons(self) -> list[Comparison]:
        """One row per metric, INT8 against float on the same samples."""
        return [row for new, old in zip(self.after, self.before, strict=True) for row in compare(new, old)]


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo-out"
    ),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Quantize, verify, bench, score and search a video with the bundled model, offline."""
    from vlmquant.report.page import write_page

    started = time.monotonic()
    shown = _run(output, show.tracker(json_output), quiet=json_output)
    page = output / "index.html"
    write_page(page, demo_page(shown))
    minutes = (time.monotonic() - started) / 60
    if json_output:
        show.as_json(
            {"page": str(page), "minutes": minutes, "comparisons": [row.to_dict() for row in shown.comparisons]}
        )
        return
    show.table("The bundled street CLIP, float beside INT8", SUMMARY_COLUMNS, summary_rows(shown))
    show.line(f"done in {minutes:.1f} minutes; open {page.resolve()}")


def _run(output: Path, track: Track, quiet: bool) -> Shown:
    from vlmquant import streetworld
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_model
    from vlmquant.quantize.recipes.presets import get_recipe
    from vlmquant.tasks.events import score_events

    model = load_model(streetworld.checkpoint())
    with _step("1/5 quantizing the bundled street CLIP to INT8", quiet):
        calibration = streetworld.calibration_set(64, track=track)
        folder = quantize_model(
            model, get_recipe(RECIPE), calibration, output / "street-clip-int8", overwrite=True, track=track
        )
    with _step("2/5 verifying the bundle", quiet):
        report = verify(folder)
        if not quiet:
            print_manifest(folder, report.manifest)
    with _step("3/5 benchmarking it against its float original", quiet):
        targets = BenchTargets(bundle=folder, checkpoint=model.folder)
        race = bench(targets, batches=(1,), rounds=6, iterations=20, track=track)
        write_bench(race, output)
    encoder, original = open_bundle(folder), model.encoder()
    if not quiet:
        for note in encoder.notes:
            show.line(f"warning: {note}")
    with _step("4/5 scoring both on held-out images", quiet):
        labelled = streetworld.zero_shot_set(SCORED_IMAGES, track=track)
        captioned = streetworld.retrieval_set(SCORED_IMAGES, track=track)
        before = _score(original, labelled, captioned, track)
        after = _score(encoder, labelled, captioned, track)
    with _step("5/5 searching a video for named events", quiet):
        script = streetworld.script_video(VIDEO_SEED, seconds=VIDEO_SECONDS, split="test")
        video = streetworld.write_video(output / "street.mp4", script, track=track)
        detection = _search(video, encoder, output, track)
    events = score_events([detection], [streetworld.truth(script)])
    return Shown(
        report=report, race=race, before=before, after=after, detection=detection, script=script, events=events
    )


@contextmanager
def _step(title: str, quiet: bool) -> Iterator[None]:
    if not quiet:
        show.line(title)
    yield


def _score(encoder: Encoder, labelled: "ZeroShotSet", captioned: "RetrievalSet", track: Track) -> list[TaskResult]:
    from vlmquant.tasks.classification import zero_shot
    from vlmquant.tasks.retrieval import retrieval

    return [
        zero_shot(encoder, labelled.images, labelled.labels, labelled.class_names, labelled.templates, track=track),
        retrieval(encoder, captioned.images, captioned.captions, track=track),
    ]


SUMMARY_COLUMNS = ("what", "float", "INT8", "change")


def summary_rows(shown: Shown) -> list[tuple[str, str, str, str]]:
    """Return the before/after table: speed, size, accuracy with intervals, events."""
    fp32, auto = shown.race.contender("torch-fp32").at(1), shown.race.auto
    ours = None if auto is None else shown.race.contender(auto).at(1)
    rows = []
    if fp32 is not None and ours is not None and ours.speedup is not None:
        times = (f"{fp32.median_ms:.2f} ms", f"{ours.median_ms:.2f} ms", f"{ours.speedup.median:.1f} x faster")
        rows.append((f"image tower, batch 1: torch float32 / INT8 ({auto})", *times))
    image = shown.report.manifest.components["image"]
    size, before = shown.report.manifest.files[image.file].bytes, shown.race.contender("torch-fp32").bytes_on_disk
    if before is not None:
        change = f"{before / size:.1f} x smaller"
        rows.append(("image tower on disk", show.megabytes(before), show.megabytes(size), change))
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


def demo_page(shown: Shown) -> "Page":
    """Return the page: before and after, the bench, the video's events, and how all of it was made."""
    from vlmquant.bench.table import circumstances
    from vlmquant.report.bench_chart import bench_png
    from vlmquant.report.detection import event_blocks, fact_blocks, key_figures, latency_blocks, run_facts
    from vlmquant.report.page import Heading, Page, Picture, Table, Text
    from vlmquant.report.plots import before_after_png
    from vlmquant.streetworld.videos import truth

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
            Picture(bench_png(shown.race), alt="Median latency of each contender"),
            Table(columns=bench_columns(shown.race), rows=bench_rows(shown.race, 1), caption=circumstances(shown.race)),
            Heading("Events in the video"),
            Text(_found_sentence(shown)),
            *event_blocks(detection, truth(shown.script)),
            *latency_blocks(detection),
            *fact_blocks({**run_facts(detection), "Bundle": _bundle_facts(manifest)}),
        ],
    )


def _search(video: Path, encoder: DualEncoder, output: Path, track: Track) -> "Detection":
    from vlmquant.streetworld.videos import EVENT_NAMES
    from vlmquant.video.detect import detect
    from vlmquant.video.write import write_detection

    detection = detect(video, encoder, EVENT_NAMES, track=track)
    write_detection(detection, output / "events")
    return detection


def _measures(shown: Shown) -> "list[BeforeAfter]":
    from vlmquant.report.plots import BeforeAfter

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
        f"The script of this video holds {micro.true} events; {micro.found} were reported and {micro.matched} of them "
        f"agree with a true one at a temporal IoU of 0.5: F1 {micro.f1:.2f}."
    )


def _bundle_facts(manifest: Manifest) -> dict[str, str]:
    calibration = manifest.calibration or {}
    return {
        "Name": manifest.name,
        "Size": show.megabytes(manifest.total_bytes),
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
