"""What a recipe costs in accuracy on one checkpoint: float against INT8, image tower, text tower and both.

    python benchmarks/accuracy.py street   -o benchmarks/results/accuracy-street.json
    python benchmarks/accuracy.py real     -o benchmarks/results/accuracy-real-tiny.json --shared ../shared/data

`street`: the bundled CLIP on held-out scenes, calibrated on training scenes. `real`: clip-real-tiny on CIFAR-10's
10,000 test images and Flickr8k's test split, calibrated on 64 images and 100 captions of Flickr8k's dev split.
Every image and text is encoded once per precision; "image" and "text" combine INT8 rows of one tower with float rows
of the other.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant import CalibrationSet, Encoder, get_recipe, load_model, open_bundle
from vlmquant.bench.environment import this_environment
from vlmquant.bundle.build import quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.data.captions import read_caption_table
from vlmquant.data.webdataset import read_webdataset
from vlmquant.models.preprocess import read_image
from vlmquant.models.spec import FloatArray, Image
from vlmquant.progress import bar
from vlmquant.tasks.classification import embed_classes, score_zero_shot
from vlmquant.tasks.compare import compare
from vlmquant.tasks.encode import encode_images
from vlmquant.tasks.protocol import digest
from vlmquant.tasks.result import TaskResult, save_json
from vlmquant.tasks.retrieval import encode_captions, score_retrieval

RECIPES = ("static-int8", "dynamic-int8")
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
    """A labelled set, a captioned set, and what to calibrate on."""

    checkpoint: Path
    images: Sequence[Image]
    labels: np.ndarray
    class_names: Sequence[str]
    templates: Sequence[str]
    captioned: Sequence[Image]
    captions: Sequence[Sequence[str]]
    calibration: CalibrationSet


@dataclass(frozen=True)
class Rows:
    """All embeddings of one precision."""

    encoder: Encoder
    images: FloatArray
    classes: FloatArray
    captioned: FloatArray
    captions: FloatArray


def street() -> Data:
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
    )


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
    )


def encode(encoder: Encoder, data: Data) -> Rows:
    ids = [str(i) for i in range(max(len(data.images), len(data.captioned)))]
    return Rows(
        encoder,
        encode_images(encoder, data.images, ids[: len(data.images)], bar).rows,
        embed_classes(encoder, data.class_names, data.templates, bar),
        encode_images(encoder, data.captioned, ids[: len(data.captioned)], bar).rows,
        encode_captions(encoder, data.captions, ids[: len(data.captioned)], bar),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["street", "real"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    arguments = parser.parse_args()
    data = street() if arguments.data == "street" else real(arguments.shared)
    model = load_model(data.checkpoint)
    before = encode(model.encoder(), data)
    reference = score(before, before, data)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.recipes:
            folder = quantize_model(model, get_recipe(name), data.calibration, Path(scratch) / name, track=bar)
            encoder = open_bundle(folder)
            after = encode(encoder, data)
            results[name] = {
                "engine": encoder.name,
                "bundle_bytes": Manifest.read(folder).total_bytes,
                "image_cosine_mean": float(np.mean(np.sum(before.images * after.images, axis=1))),
                "text_cosine_mean": float(np.mean(np.sum(before.captions * after.captions, axis=1))),
                "image": rows_of(score(after, before, data), reference),
                "text": rows_of(score(before, after, data), reference),
                "both": rows_of(score(after, after, data), reference),
            }
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "calibration": data.calibration.to_dict(),
        "protocols": [str(result.protocol) for result in reference],
        "recipes": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    for name, result in results.items():
        for components in ("image", "text", "both"):
            for metric, row in result[components].items():
                print(
                    f"{name:14} {components:6} {metric:18} {row['float']:.4f} -> {row['int8']:.4f}  "
                    f"{row['difference_points']:+.2f} [{row['low_points']:+.2f}, {row['high_points']:+.2f}] points"
                )


if __name__ == "__main__":
    main()
