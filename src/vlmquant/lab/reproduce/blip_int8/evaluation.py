"""Captioning in production with a BLIP in INT8: seconds, memory, size and BLEU-4, FP32 beside dynamic INT8.

The source runs `Salesforce/blip-image-captioning-base` on 25 to 50 pictures of COCO. Its figures are those of
docs/sources.md.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.environment import this_environment
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, FEW_IMAGES, CalibrationSet
from vlmquant.checkpoints.hub import resolve
from vlmquant.data.reader import read
from vlmquant.data.sets import CaptionedImages, summarize
from vlmquant.errors import DataError
from vlmquant.files import digest, write_whole
from vlmquant.lab.reproduce.blip_int8.caption_figures import Turns, chart, rows
from vlmquant.lab.reproduce.blip_int8.captions_worker import DYNAMIC, FLOAT, HALF, OPTIONS, OURS, places
from vlmquant.lab.reproduce.kept import STEPS, Kept
from vlmquant.lab.reproduce.outcome import Reproduction
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.samples import calibration_of, picked
from vlmquant.lab.reproduce.turns import taken
from vlmquant.opening.first_use import BUNDLED
from vlmquant.opening.named import wrong_head
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.text import counted, csv_table

TITLE = "Captioning in production with BLIP in INT8"
RECIPES = {"vision": "static-int8", "decoder": "static-int8"}
"""What `vlmquant quantize` takes for a BLIP where no recipe is named."""
STREET, STREET_PICTURES = "drawn-street-captions", 50
WORKER = "vlmquant.lab.reproduce.blip_int8.captions_worker"
START_SECONDS, PICTURE_SECONDS = 1800.0, 60.0
"""The longest that a contender may take to start, and on top for each picture."""


def blip_int8(asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the source's evaluation: each contender `asked.rounds` times in its own process, in turn.

    Raises DataError for data without captions, ModelError for what writes none, EngineError where a contender fails.
    """
    no_checkpoint, named, checkpoint = _checkpoint(asked)
    identity = _identity(named)
    no_data, place = _place(asked, track)
    everything = captioned(place, track)
    data = picked(everything, np.arange(len(everything))[: asked.limit])
    key = {
        "source": "blip-int8",
        "model": identity,
        "data": everything.digest,
        "pictures": len(data),
        "calibrated_on": "drawn streets" if asked.data is None else "the data",
        "threads": asked.used_threads,
        "tokens": OPTIONS.max_new_tokens,
        "recipes": digest({name: get_recipe(recipe).to_dict() for name, recipe in RECIPES.items()}),
    }
    kept = Kept(asked.output, key, track)
    bundle = kept.place / "bundle"
    calibrate = partial(_calibration, asked, everything, len(data))
    made = kept.once("bundle", lambda: _quantize(named, bundle, calibrate, track), made=bundle)
    request = {
        "checkpoint": str(checkpoint),
        "bundle": str(bundle),
        "threads": asked.used_threads,
        "pictures": places(data.images),
    }
    seconds = START_SECONDS + PICTURE_SECONDS * len(data)
    turns = taken(kept, _contenders(), asked.rounds, WORKER, request, seconds)
    return Reproduction(
        source="blip-int8",
        title=TITLE,
        stand_ins=(*no_checkpoint, *no_data),
        rows=rows(turns, data),
        charts=(chart(turns),),
        notes=_notes(turns, made, everything),
        facts={
            "Model": Path(named).name,
            "Data": f"{place.resolve().name}, the first {len(data)} of {counted(len(everything), 'picture')}",
            "Recipes of static-int8": ", ".join(f"{name}={recipe}" for name, recipe in RECIPES.items())
            + "; what `vlmquant quantize` takes where none is named",
            "Calibrated on": str(made["calibrated_on"]),
            "Captions": f"greedy, at most {OPTIONS.max_new_tokens} tokens",
            "Contenders": f"{asked.rounds} turns each, alternated, every turn in a process of its own, one picture at "
            f"a time, {asked.used_threads} threads; the first picture is captioned once before any is timed",
        },
        environment=this_environment(),
        computed=kept.computed,
        steps=kept.steps,
    )


def _notes(turns: Turns, made: Mapping[str, Any], data: CaptionedImages) -> tuple[str, ...]:
    notes = [
        "Seconds an image are from the decoded picture to the caption; images a second are end to end, with the files. "
        "Changes have 95 % intervals, paired over pictures.",
        f"{OURS} ran as {turns[OURS][0]['model']}.",
    ]
    if made["on_scored"]:
        notes.append(
            f"{OURS} was calibrated on the scored pictures, without their captions, as there are fewer than "
            f"{FEW_IMAGES} others; give more pictures than --limit takes to keep the two apart."
        )
    if data.problems:
        notes.append(f"Left out {len(data.problems)} entries of {data.name}: {summarize(data.problems)}.")
    for name, found in turns.items():
        if any(turn["captions"] != found[0]["captions"] for turn in found):
            notes.append(f"{name} did not write the same captions in every turn; those of the first are scored.")
    return tuple(notes)


def _contenders() -> tuple[str, ...]:
    import torch

    return (FLOAT, DYNAMIC, OURS, *((HALF,) if torch.cuda.is_available() else ()))


def _checkpoint(asked: ReproductionRequest) -> tuple[tuple[str, ...], str, Path]:
    """Return what stood in, the model as it is named, and its folder."""
    if asked.checkpoint is not None:
        return (), asked.checkpoint, resolve(asked.checkpoint)
    import streetworld

    folder = streetworld.checkpoint(BUNDLED["captioner"])
    said = "model: the drawn-street BLIP stands in for Salesforce/blip-image-captioning-base; name it with --checkpoint"
    return (said,), str(folder), folder


def _identity(named: str) -> str:
    from vlmquant.checkpoints import load_blip

    model = load_blip(named)
    if model.head != "captioner":
        raise wrong_head(model.name, model.head, "captioner")
    return model.identity


def _place(asked: ReproductionRequest, track: Track) -> tuple[tuple[str, ...], Path]:
    """Return what stood in, and the folder of captioned pictures."""
    if asked.data is not None:
        return (), asked.data
    said = (
        f"data: {STREET_PICTURES} drawn street scenes with five captions each stand in for COCO's; name a folder with "
        "--data"
    )
    return (said,), _drawn(asked.output / STEPS / STREET, track)


def captioned(folder: Path, track: Track = silent) -> CaptionedImages:
    """Read captioned pictures, of COCO the split val. Raises DataError for data without captions."""
    coco = next((folder / "annotations").glob("captions_val*.json"), None)
    found = read(folder, usual_split="test" if coco is None else "val", track=track)
    if not isinstance(found, CaptionedImages):
        raise DataError(
            f"{folder} holds pictures without captions; blip-int8 takes COCO's annotations/captions_val2017.json with "
            "val2017/, Karpathy's dataset_*.json, or captions.csv (image,caption) with images/"
        )
    return found


def _drawn(folder: Path, track: Track) -> Path:
    """Draw the stand-in as a data set in `folder`; where its table of captions is, which comes last, it is whole."""
    from PIL import Image as PillowImage

    import streetworld

    table = folder / "captions.csv"
    if table.is_file():
        return folder
    (folder / "images").mkdir(parents=True, exist_ok=True)
    drawn = streetworld.retrieval_set(STREET_PICTURES, track=track)
    lines = []
    for index, (pixels, texts) in enumerate(zip(drawn.images, drawn.captions, strict=True)):
        name = f"{index:04d}.png"
        PillowImage.fromarray(pixels).save(folder / "images" / name)
        lines += [{"image": name, "caption": text} for text in texts]
    write_whole(table, csv_table(("image", "caption"), lines))
    return folder


def _calibration(asked: ReproductionRequest, data: CaptionedImages, scored: int) -> tuple[CalibrationSet, bool]:
    """Return pictures behind the first `scored`, or those where there are too few others, and whether it is those."""
    if asked.data is None:
        import streetworld

        return streetworld.calibration_set(DEFAULT_IMAGES), False
    return calibration_of(data, np.arange(scored), "captions")


def _quantize(
    named: str, bundle: Path, calibrate: Callable[[], tuple[CalibrationSet, bool]], track: Track
) -> dict[str, Any]:
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_blip

    calibration, on_scored = calibrate()
    if not (bundle / MANIFEST).is_file():
        recipes = {component: get_recipe(recipe) for component, recipe in RECIPES.items()}
        quantize_model(load_blip(named), recipes, calibration, bundle, track=track)
    return {"calibrated_on": calibration.images_from, "on_scored": on_scored}
