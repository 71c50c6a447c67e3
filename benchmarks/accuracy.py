"""What a recipe costs in accuracy on one checkpoint: float against INT8, image tower, text tower and both.

    python benchmarks/accuracy.py street -o benchmarks/results/accuracy-street.json
    python benchmarks/accuracy.py real   -o benchmarks/results/accuracy-real-tiny.json --shared ../shared/data
    python benchmarks/accuracy.py real   -o benchmarks/results/stress-real-tiny.json --stressed

`street`: the bundled CLIP on held-out scenes, calibrated on training scenes. `real`: clip-real-tiny on CIFAR-10's
10,000 test images and Flickr8k's test split, calibrated on 64 images and 100 captions of Flickr8k's dev split.
The budgeted result is what `vlmquant quantize --max-drop 0.3 --metric fidelity` finds on a development set: the
calibration pictures' own split, because neither test set may choose anything (0.3 points are 0.003 of mean cosine).
`--stressed` puts outliers into the model that change no output (`vlmquant.lab.stress`) and adds torch's dynamic
quantization, simulated and real. Every image and text is encoded once per precision, in batches of 32; "image" and
"text" combine INT8 rows of one tower with float rows of the other. A run that was stopped goes on from its
`.partial.json`.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_build import torch_dynamic
from PIL import Image as PictureFile

from vlmquant import CalibrationSet, Encoder, get_recipe, load_model, open_bundle
from vlmquant.bench.environment import this_environment
from vlmquant.bench.measure import bytes_on_disk
from vlmquant.budget.budget import Budget
from vlmquant.budget.search import quantize_within_budget
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.data.captions import read_caption_table
from vlmquant.data.sets import CaptionedImages
from vlmquant.data.webdataset import read_webdataset
from vlmquant.files import digest
from vlmquant.lab.stress import stressed
from vlmquant.metrics.ranking import refuse_non_finite
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.preprocess import preprocess, read_image
from vlmquant.models.spec import FloatArray, Image, ImageSpec
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import simulation_only
from vlmquant.tasks.classification import score_zero_shot
from vlmquant.tasks.compare import compare
from vlmquant.tasks.encode import BATCH_SIZE, embed_classes, encode_captions
from vlmquant.tasks.result import TaskResult, save_json
from vlmquant.tasks.retrieval import score_retrieval

BUDGETED = "max-drop-0.3"
BUDGET = Budget(max_drop_points=0.3, metric="fidelity")
RECIPES = ("static-int8", BUDGETED, "dynamic-int8")
REAL_DYNAMIC = "torch-dynamic-real"
STRESS_RECIPES = ("torch-dynamic", REAL_DYNAMIC, "vanilla-w8a8", "static-int8", BUDGETED)
DEVELOPMENT_SCENES = 200
REAL_TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of the small {}.",
    "a {}.",
    "a picture of one {}.",
    "a low resolution photo of a {}.",
    "a cropped photo of the {}.",
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A labelled set, a captioned set, what to calibrate on, and what to search on, given a scratch folder."""

    checkpoint: Path
    images: Sequence[Image]
    labels: np.ndarray
    class_names: Sequence[str]
    templates: Sequence[str]
    captioned: Sequence[Image]
    captions: Sequence[Sequence[str]]
    calibration: CalibrationSet
    development: Callable[[Path], CaptionedImages]


@dataclass(frozen=True)
class Pixels:
    """The images of both sets, preprocessed once for all precisions: (n, 3, height, width) float32."""

    images: FloatArray
    captioned: FloatArray


@dataclass(frozen=True)
class Rows:
    """All embeddings of one precision."""

    encoder: Encoder
    images: FloatArray
    classes: FloatArray
    captioned: FloatArray
    captions: FloatArray


def street(shared: Path) -> Data:
    from vlmquant import streetworld

    labelled, captioned = streetworld.zero_shot_set(2000), streetworld.retrieval_set(1000)
    return Data(
        checkpoint=streetworld.checkpoint(),
        images=labelled.images,
        labels=np.asarray(labelled.labels),
        class_names=labelled.class_names,
        templates=labelled.templates,
        captioned=captioned.images,
        captions=captioned.captions,
        calibration=streetworld.calibration_set(64),
        development=street_development,
    )


def street_development(scratch: Path) -> CaptionedImages:
    from vlmquant import streetworld

    drawn = streetworld.retrieval_set(DEVELOPMENT_SCENES, split="dev")
    rows = ["image,caption"]
    for i, (picture, captions) in enumerate(zip(drawn.images, drawn.captions, strict=True)):
        PictureFile.fromarray(picture).save(scratch / f"{i}.png")
        rows += [f'{i}.png,"{caption}"' for caption in captions]
    (scratch / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_caption_table(scratch / "captions.csv", scratch)


def real(shared: Path) -> Data:
    cifar = read_webdataset(shared / "cifar10", track=bar)
    flickr, pictures = shared / "flickr8k", shared / "flickr8k" / "images"
    test = read_caption_table(flickr / "captions.csv", pictures, split=flickr / "test.txt", track=bar)
    dev = read_caption_table(flickr / "captions.csv", pictures, split=flickr / "dev.txt", track=bar)
    calibration = CalibrationSet(
        images=tuple(read_image(pictures / name) for name in dev.ids[:64]),
        texts=tuple(captions[0] for captions in dev.captions),
        images_from="64 images of Flickr8k dev",
        texts_from="100 captions of Flickr8k dev",
    )
    return Data(
        checkpoint=shared / "checkpoints" / "clip-real-tiny",
        images=cifar.images,
        labels=cifar.labels,
        class_names=cifar.class_names,
        templates=REAL_TEMPLATES,
        captioned=test.images,
        captions=test.captions,
        calibration=calibration,
        development=lambda scratch: dev,
    )


DATA: dict[str, Callable[[Path], Data]] = {"street": street, "real": real}


def limited(data: Data, count: int | None) -> Data:
    """Keep the first `count` images of either set, to try a script out."""
    return replace(
        data,
        images=data.images[:count],
        labels=data.labels[:count],
        captioned=data.captioned[:count],
        captions=data.captions[:count],
    )


def preprocessed(data: Data, spec: ImageSpec) -> Pixels:
    def stack(images: Sequence[Image], what: str) -> FloatArray:
        return np.stack([preprocess(images[i], spec) for i in bar(range(len(images)), f"Preprocessing {what}", None)])

    return Pixels(stack(data.images, "labelled images"), stack(data.captioned, "captioned images"))


def encode(encoder: DualEncoder, data: Data, pixels: Pixels) -> Rows:
    def images(all_pixels: FloatArray, what: str) -> FloatArray:
        starts = range(0, len(all_pixels), BATCH_SIZE)
        track = bar(starts, f"Encoding {what} with {encoder.name}", None)
        rows = np.concatenate([encoder.encode_pixels(all_pixels[start : start + BATCH_SIZE]) for start in track])
        refuse_non_finite(rows, [str(i) for i in range(len(rows))], "image")
        return rows

    captioned_ids = [str(i) for i in range(len(data.captioned))]
    return Rows(
        encoder,
        images(pixels.images, "labelled images"),
        embed_classes(encoder, data.class_names, data.templates, bar),
        images(pixels.captioned, "captioned images"),
        encode_captions(encoder, data.captions, captioned_ids, bar),
    )


def score(image: Rows, text: Rows, data: Data) -> list[TaskResult]:
    labels = np.asarray(data.labels, dtype=np.int64)
    ids = [str(i) for i in range(len(data.images))]
    known = digest([int(label) for label in labels], list(data.class_names))
    captioned = digest([list(captions) for captions in data.captions])
    return [
        score_zero_shot(
            image.encoder, image.images, text.classes, labels, data.class_names, data.templates, ids=ids, dataset=known
        ),
        score_retrieval(
            image.encoder,
            image.captioned,
            text.captions,
            data.captions,
            ids=[str(i) for i in range(len(data.captioned))],
            dataset=captioned,
        ),
    ]


def rows_of(candidates: Sequence[TaskResult], references: Sequence[TaskResult]) -> dict[str, Any]:
    found = {}
    for candidate, reference in zip(candidates, references, strict=True):
        for row in compare(candidate, reference):
            found[row.metric] = {
                "float": row.reference,
                "int8": row.candidate,
                "difference_points": 100 * row.difference.estimate,
                "low_points": 100 * row.difference.low,
                "high_points": 100 * row.difference.high,
                "mcnemar_p": row.p_value,
                "losses": len(row.flips.losses),
                "gains": len(row.flips.gains),
                "agreement": row.agreement,
                "samples": row.samples,
            }
    return found


def against_float(after: Rows, before: Rows, data: Data) -> dict[str, Any]:
    """Return the scores of one precision with one tower of it or both, and the cosines to the float embeddings."""
    reference = score(before, before, data)
    return {
        "image_cosine_mean": float(np.mean(np.sum(before.images * after.images, axis=1))),
        "text_cosine_mean": float(np.mean(np.sum(before.captions * after.captions, axis=1))),
        "image": rows_of(score(after, before, data), reference),
        "text": rows_of(score(before, after, data), reference),
        "both": rows_of(score(after, after, data), reference),
    }


def candidate(name: str, model: ClipModel, data: Data, folder: Path) -> DualEncoder:
    """Return `model` quantized by what is called `name`, as a bundle in `folder` if it can be one."""
    calibration = data.calibration
    if name == BUDGETED:
        return budgeted(model, data, folder)
    if name == REAL_DYNAMIC:
        towers = replace(
            model, image_tower=torch_dynamic(model.image_tower), text_tower=torch_dynamic(model.text_tower)
        )
        return replace(_on_cpu(towers), name=f"{model.name} by quantize_dynamic")
    recipe = get_recipe(name)
    if simulation_only(recipe) is None:
        return open_bundle(quantize_model(model, recipe, calibration, folder, track=bar), threads=1)
    towers = replace(
        model,
        image_tower=quantize_tower(model.image_tower, recipe, calibration_inputs(model, calibration, "image"), name),
        text_tower=quantize_tower(model.text_tower, recipe, calibration_inputs(model, calibration, "text"), name),
    )
    return replace(towers.encoder(), name=f"{model.name} {name} simulated")


def budgeted(model: ClipModel, data: Data, folder: Path) -> DualEncoder:
    """Search the fastest recipe inside `BUDGET`, write its bundle to `folder` and open it."""
    with tempfile.TemporaryDirectory() as scratch:
        development = data.development(Path(scratch))
        log = quantize_within_budget(model, data.calibration, development, BUDGET, folder, threads=1, track=bar)
    return replace(open_bundle(folder, threads=1), name=f"{model.name}, {log.chosen}, held out: {log.confirmed}")


def _on_cpu(model: ClipModel) -> DualEncoder:
    """Run towers that have no parameters to ask for a device, as torch's dynamic modules do not."""

    def run(tower: torch.nn.Module) -> Callable[[Any], FloatArray]:
        def features(inputs: Any) -> FloatArray:
            with torch.inference_mode():
                return np.asarray(tower(torch.from_numpy(inputs)).numpy(), dtype=np.float32)

        return features

    return replace(model.encoder(), image_tower=run(model.image_tower), text_tower=run(model.text_tower))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--stressed", action="store_true")
    parser.add_argument("--limit", type=int, help="only the first so many images of either set, for a trial")
    parser.add_argument("--recipes", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = limited(DATA[arguments.data](arguments.shared), arguments.limit)
    model = load_model(data.checkpoint)
    model = stressed(model) if arguments.stressed else model
    pixels = preprocessed(data, model.image_spec)
    partial = arguments.output.with_suffix(".partial.json")
    results: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    before = encode(model.encoder(), data, pixels)
    for name in arguments.recipes or (STRESS_RECIPES if arguments.stressed else RECIPES):
        if name in results:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            encoder = candidate(name, model, data, folder)
            results[name] = {
                "engine": encoder.name,
                "bundle_bytes": bytes_on_disk(folder) if folder.exists() else None,
                **against_float(encode(encoder, data, pixels), before, data),
            }
        save_json(partial, results)
        show(name, results[name])
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "calibration": data.calibration.to_dict(),
        "protocols": [str(result.protocol) for result in score(before, before, data)],
        "recipes": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


def show(name: str, result: dict[str, Any]) -> None:
    for components in ("image", "text", "both"):
        for metric, row in result[components].items():
            print(
                f"{name:30} {components:6} {metric:18} {row['float']:.4f} -> {row['int8']:.4f}  "
                f"{row['difference_points']:+.2f} [{row['low_points']:+.2f}, {row['high_points']:+.2f}] points",
                flush=True,
            )


if __name__ == "__main__":
    main()
