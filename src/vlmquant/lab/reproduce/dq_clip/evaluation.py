"""DQ-CLIP: which tower of a CLIP survives torch's dynamic quantization, on CIFAR-100; and what else there is.

The source runs `openai/clip-vit-base-patch32` and `-patch16`; one run here takes one checkpoint. Its figures are those
of docs/sources.md. Without a checkpoint a small CLIP stands in for the first, the same with outliers for the second.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.bench.environment import this_environment
from vlmquant.bench.inputs import write_inputs
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.checkpoints.hub import resolve
from vlmquant.data.sets import LabelledImages, summarize
from vlmquant.files import digest
from vlmquant.lab.reproduce.dq_clip.collapse import layers_of
from vlmquant.lab.reproduce.dq_clip.full_size import ARCHITECTURES, RESNET, plain, random_bundle
from vlmquant.lab.reproduce.dq_clip.labelled import drawn_pictures, labelled_pictures
from vlmquant.lab.reproduce.dq_clip.quantized_towers import (
    BUNDLED_CONTENDERS,
    TORCH_RECIPE,
    Subject,
    bundle_once,
    encoders,
)
from vlmquant.lab.reproduce.dq_clip.tower_charts import charts_of
from vlmquant.lab.reproduce.dq_clip.tower_figures import (
    PRINTED,
    cost_rows,
    layer_rows,
    printed_for,
    probe_rows,
    share_row,
    zero_shot_rows,
)
from vlmquant.lab.reproduce.dq_clip.tower_scores import TowerRows, ZeroShot, encoded, probe_scores, zero_shot_scores
from vlmquant.lab.reproduce.dq_clip.towers_worker import CONTENDERS, ITERATIONS, OURS
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.lab.reproduce.outcome import Reproduction, Row
from vlmquant.lab.reproduce.published import PUBLISHED, count_remark
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.samples import calibration_of, picked
from vlmquant.lab.reproduce.turns import taken
from vlmquant.opening.first_use import BUNDLED
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.tasks.compare import Comparison
from vlmquant.tasks.fidelity import evenly
from vlmquant.tasks.linear_probe import why_no_probe

TITLE = "DQ-CLIP: dynamic quantization of CLIP's towers"
DATA = "cifar-100"
WORKER = "vlmquant.lab.reproduce.dq_clip.towers_worker"
TIMEOUT_SECONDS = 3600.0
"""The longest that a contender may take to start and see a picture a dozen times."""


@dataclass(frozen=True, kw_only=True)
class TowerFindings:
    """All that was found of one subject; `names` are its checkpoints among `PRINTED`."""

    subject: Subject
    names: tuple[str, ...]
    bundle: Manifest
    rows: Mapping[str, TowerRows]
    zero_shot: ZeroShot
    probes: Mapping[str, Comparison] | str
    layers: Mapping[str, Mapping[str, Any]]


def dq_clip(asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the source's evaluation: scores from towers that are encoded once, times in turn in own processes.

    Raises DataError for data without labels, ModelError for what is not a CLIP, EngineError where a contender fails.
    """
    everything = drawn_pictures(track) if asked.data is None else labelled_pictures(asked.data, track)
    scored = evenly(len(everything), asked.limit or len(everything))
    data = picked(everything, scored)
    calibrate, on_scored = _calibration(asked, everything, scored)
    kept: list[Kept] = []
    if asked.checkpoint is None:
        found = [
            _findings(asked, kept, subject, (name,), data, calibrate, track) for name, subject in _stand_ins().items()
        ]
        costs = [row for name in PRINTED for row in _random_weights(asked, kept, name, track)]
    else:
        subject = Subject(name=Path(asked.checkpoint).name, folder=resolve(asked.checkpoint))
        own = _findings(asked, kept, subject, _names(subject), data, calibrate, track)
        found, costs = [own], _own_costs(asked, kept[-1], own, track)
    rows = [row for one in found for row in _rows(one)] + costs + [_resnet(asked, kept, track)]
    return Reproduction(
        source="dq-clip",
        title=TITLE,
        stand_ins=_said(asked, len(data)),
        rows=tuple(rows),
        charts=tuple(
            chart for one in found for chart in charts_of(one.subject.name, one.rows, data, one.layers["image"])
        ),
        notes=_notes(asked, data, everything, on_scored),
        facts={
            "Model": asked.checkpoint or "stand-ins",
            "Data": f"{data.name}, {len(data):,} of {len(everything):,} pictures, {len(data.class_names)} classes",
            "Static ranges from": calibrate().images_from,
            "Scores": "torch's dynamic quantization simulated (7 bits, one range a batch of 32), ours on the engine",
            "Times": f"{asked.rounds} turns each, alternated, every turn in a process of its own, the image tower on "
            f"one picture {ITERATIONS} times, {asked.used_threads} threads, medians",
        },
        environment=this_environment(),
        computed=sum(one.computed for one in kept),
        steps=sum(one.steps for one in kept),
    )


def _findings(
    asked: ReproductionRequest,
    kept_so_far: list[Kept],
    subject: Subject,
    names: tuple[str, ...],
    data: LabelledImages,
    calibrate: Callable[[], CalibrationSet],
    track: Track,
) -> TowerFindings:
    model = cache(subject.model)
    key = {
        "source": "dq-clip",
        "model": model().identity,
        "data": data.digest,
        "calibrated_on": calibrate().digest,
        "threads": asked.used_threads,
        "recipes": digest({name: get_recipe(name).to_dict() for name in (TORCH_RECIPE, *BUNDLED_CONTENDERS)}),
    }
    kept = Kept(asked.output, key, track)
    kept_so_far.append(kept)
    bundles = {
        name: bundle_once(kept, name, model, get_recipe(name), calibrate, track=track) for name in BUNDLED_CONTENDERS
    }
    opened = encoders(model, bundles, calibrate, asked.used_threads, track)
    rows = {name: encoded(kept, name, open_it, data, track) for name, open_it in opened.items()}
    return TowerFindings(
        subject=subject,
        names=names,
        bundle=Manifest.read(bundles[OURS]),
        rows=rows,
        zero_shot=zero_shot_scores(rows, data),
        probes=why_no_probe(data) or probe_scores(kept, rows, data, track),
        layers={
            component: kept.once(f"layers {component}", partial(_layers, model, component, calibrate, track))
            for component in model().components
        },
    )


def _layers(
    model: Callable[[], ClipModel], component: str, calibrate: Callable[[], CalibrationSet], track: Track
) -> dict[str, Any]:
    inputs = calibration_inputs(model(), calibrate(), component)
    return layers_of(model().tower(component), inputs, f"{TORCH_RECIPE}, {component} tower", track)


def _rows(found: TowerFindings) -> list[Row]:
    title, names = found.subject.name, found.names
    losses = {name: 1 - facts.fidelity["cosine_mean"] for name, facts in found.bundle.components.items()}
    return [
        *zero_shot_rows(title, names, found.zero_shot),
        *probe_rows(title, names, found.probes),
        *layer_rows(title, found.layers, losses),
    ]


def _own_costs(asked: ReproductionRequest, kept: Kept, found: TowerFindings, track: Track) -> list[Row]:
    """Return size, time and INT8 shares of the user's checkpoint."""
    bundles = {name: kept.place / name for name in BUNDLED_CONTENDERS}
    turns = _turns(asked, kept, found.subject.folder, bundles)
    return [*cost_rows(found.subject.name, found.names, turns), *_share_rows(found.subject.name, found.bundle)]


def _random_weights(asked: ReproductionRequest, kept_so_far: list[Kept], name: str, track: Track) -> list[Row]:
    """Return size, time and INT8 shares of the source's architecture called `name`, with random weights."""
    kept = _random_kept(asked, ARCHITECTURES[name], track)
    kept_so_far.append(kept)
    bundles = {}
    for contender in BUNDLED_CONTENDERS:
        checkpoint, bundles[contender] = random_bundle(kept, ARCHITECTURES[name], contender, track)
    title = f"{name}, full size with random weights, which have no accuracy"
    turns = _turns(asked, kept, checkpoint, bundles)
    return [*cost_rows(title, (name,), turns), *_share_rows(title, Manifest.read(bundles[OURS]))]


def _resnet(asked: ReproductionRequest, kept_so_far: list[Kept], track: Track) -> Row:
    kept = _random_kept(asked, RESNET, track)
    kept_so_far.append(kept)
    _, bundle = random_bundle(kept, RESNET, OURS, track, ("image",))
    what = "image tower of RN50, batch norm folded; random weights, which have no accuracy"
    return share_row(what, Manifest.read(bundle), "image")


def _share_rows(title: str, bundle: Manifest) -> list[Row]:
    return [share_row(f"{component} tower of {title}", bundle, component) for component in bundle.components]


def _random_kept(asked: ReproductionRequest, architecture: str, track: Track) -> Kept:
    recipes = digest({name: plain(name).to_dict() for name in BUNDLED_CONTENDERS})
    key = {"source": "dq-clip", "architecture": architecture, "recipes": recipes, "threads": asked.used_threads}
    return Kept(asked.output, key, track)


def _turns(
    asked: ReproductionRequest, kept: Kept, checkpoint: Path, bundles: Mapping[str, Path]
) -> dict[str, list[dict[str, Any]]]:
    request = {
        "checkpoint": str(checkpoint),
        "bundles": {name: str(path) for name, path in bundles.items()},
        "pixels": str(write_inputs(checkpoint, "image", (1,), 0, kept.place)[1]),
        "threads": asked.used_threads,
    }
    return taken(kept, CONTENDERS, asked.rounds, WORKER, request, TIMEOUT_SECONDS)


def _stand_ins() -> dict[str, Subject]:
    import streetworld

    folder = streetworld.checkpoint(BUNDLED["dual-encoder"])
    return {
        "B/32": Subject(name="stand-in for B/32", folder=folder),
        "B/16": Subject(name="stand-in for B/16 (with outliers)", folder=folder, outliers=True),
    }


def _names(subject: Subject) -> tuple[str, ...]:
    """Return the source's checkpoints that are nearest to the subject's patches, all where it has no patches."""
    vision = getattr(subject.model().image_tower, "vision_model", None)
    return printed_for(None if vision is None else int(vision.config.patch_size))


def _said(asked: ReproductionRequest, pictures: int) -> tuple[str, ...]:
    said = []
    if asked.checkpoint is None:
        said.append(
            "model: the drawn-street CLIP stands in for openai/clip-vit-base-patch32, and an equal one with outliers "
            "in its activations for openai/clip-vit-base-patch16; sizes and times are of the full architectures with "
            "random weights; name a checkpoint with --checkpoint"
        )
    if asked.data is None:
        said.append(
            f"data: {pictures} drawn street scenes stand in for CIFAR-100; name its folder or archive with --data"
        )
    return tuple(said)


def _calibration(
    asked: ReproductionRequest, data: LabelledImages, scored: NDArray[np.int64]
) -> tuple[Callable[[], CalibrationSet], bool]:
    if asked.data is None:
        import streetworld

        return cache(partial(streetworld.calibration_set, DEFAULT_IMAGES)), False
    found, on_scored = calibration_of(data, scored, "labels")
    return lambda: found, on_scored


def _notes(
    asked: ReproductionRequest, data: LabelledImages, everything: LabelledImages, on_scored: bool
) -> tuple[str, ...]:
    notes = [
        "In brackets: the difference to FP32 in points with its 95 % interval, paired over pictures. The printed "
        "zero-shot figures stand beside both template sets.",
        "Why a tower collapses: 1 - mean cosine of its embeddings to FP32's under torch's INT8, 7 bits with one range "
        "for all tokens of a batch, on pictures or texts that static ranges come from; where one value in 10,000 takes "
        "most of that range, all other values share what is left of the 128 steps.",
        "The linear probe is trained on 60 % of the pictures, its strength chosen on 20 %, and scored on 20 %; "
        "the source trains on CIFAR-100's own training pictures.",
    ]
    if asked.data is not None:
        published = PUBLISHED[DATA]
        remark = count_remark(DATA, len(data))
        if remark:
            notes.append(f"{remark}.")
        if len(data.class_names) != published.classes:
            notes.append(f"{published.name} has {published.classes} classes, these data have {len(data.class_names)}.")
    if on_scored:
        notes.append(
            f"{OURS} was calibrated on pictures that are scored, without their labels; give --limit to keep some apart."
        )
    if everything.problems:
        notes.append(f"Left out {len(everything.problems)} entries of {data.name}: {summarize(everything.problems)}.")
    return tuple(notes)
