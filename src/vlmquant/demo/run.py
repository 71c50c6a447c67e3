"""The steps of the demonstration, and what they found out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import streetworld
from streetworld.dataset import RetrievalSet, ZeroShotSet
from streetworld.videos import EVENT_NAMES, VideoScript
from vlmquant.bench import BenchResult, BenchTargets, bench
from vlmquant.build.build import quantize_model
from vlmquant.bundle import VerifyReport, open_bundle, verify
from vlmquant.checkpoints import load_model
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.heads import as_encoder
from vlmquant.models.spec import Encoder
from vlmquant.output import OutputFolder, results
from vlmquant.progress import Track
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.report.bench_chart import FILES as BENCH_FILES
from vlmquant.report.bench_chart import write_bench
from vlmquant.tasks.classification import zero_shot
from vlmquant.tasks.compare import Comparison, compare
from vlmquant.tasks.events import EventScores, score_events
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.retrieval import retrieval
from vlmquant.video.detect import Detection, detect
from vlmquant.video.write import FILES as EVENT_FILES
from vlmquant.video.write import VERB as DETECT
from vlmquant.video.write import write_detection

VERB = "demo"
RECIPE = "static-int8"
SCORED_IMAGES = 500
EVENTS = "events"
VIDEO_SEED = 0
VIDEO_SECONDS = 40.0
FILES = ("street.mp4", "index.html", *BENCH_FILES)
"""What is written beside the bundle and the events."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Everything that the demo found out; `bundle` is the folder of what it made."""

    bundle: Path
    report: VerifyReport
    race: BenchResult
    before: Sequence[TaskResult]
    after: Sequence[TaskResult]
    detection: Detection
    script: VideoScript
    events: EventScores

    @property
    def comparisons(self) -> list[Comparison]:
        """One row per metric, INT8 against float on the same samples."""
        return [row for new, old in zip(self.after, self.before, strict=True) for row in compare(new, old)]


def run_demo(output: Path, *, tell: Callable[[str], None], track: Track) -> Shown:
    """Quantize, verify, bench, score and search a video with the bundled model, into `output`.

    `tell` is given the title of each step as it begins, and what the reader must know. Raises what the steps raise.
    """
    OutputFolder(output, VERB).check(FILES)
    OutputFolder(output / EVENTS, DETECT).check(EVENT_FILES.values())
    model = load_model(streetworld.checkpoint())
    tell("1/5 quantizing the bundled street CLIP to INT8")
    calibration = streetworld.calibration_set(64, track=track)
    folder = quantize_model(
        model, get_recipe(RECIPE), calibration, output / "street-clip-int8", overwrite=True, track=track
    )
    tell("2/5 verifying the bundle")
    report = verify(folder)
    tell("3/5 benchmarking it against its float original")
    targets = BenchTargets(bundle=folder, checkpoint=model.folder)
    race = bench(targets, batches=(1,), rounds=6, iterations=20, track=track)
    write_bench(race, output, VERB)
    for said in race.unsteady:
        tell(f"warning: {said}")
    encoder, original = as_encoder(open_bundle(folder, track=track)), model.encoder()
    for note in encoder.notes:
        tell(f"warning: {note}")
    tell("4/5 scoring both on held-out images")
    labelled = streetworld.zero_shot_set(SCORED_IMAGES, track=track)
    captioned = streetworld.retrieval_set(SCORED_IMAGES, track=track)
    before = _score(original, labelled, captioned, track)
    after = _score(encoder, labelled, captioned, track)
    tell("5/5 searching a video for named events")
    script = streetworld.script_video(VIDEO_SEED, seconds=VIDEO_SECONDS, split="test")
    with results(output, VERB, FILES):
        video = streetworld.write_video(output / "street.mp4", script, track=track)
    detection = _search(video, encoder, output, track)
    events = score_events([detection], [streetworld.truth(script)])
    return Shown(
        bundle=folder,
        report=report,
        race=race,
        before=before,
        after=after,
        detection=detection,
        script=script,
        events=events,
    )


def _score(encoder: Encoder, labelled: ZeroShotSet, captioned: RetrievalSet, track: Track) -> list[TaskResult]:
    return [
        zero_shot(encoder, labelled.images, labelled.labels, labelled.class_names, labelled.templates, track=track),
        retrieval(encoder, captioned.images, captioned.captions, track=track),
    ]


def _search(video: Path, encoder: DualEncoder, output: Path, track: Track) -> Detection:
    detection = detect(video, encoder, EVENT_NAMES, track=track)
    write_detection(detection, output / EVENTS)
    return detection
