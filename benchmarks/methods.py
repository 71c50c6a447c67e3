"""What each step of a quantization method buys, in simulation, on clip-real-tiny.

    python benchmarks/methods.py -o benchmarks/results/methods-real-tiny.json --shared ../shared/data

Top-1 on every tenth test image of CIFAR-10 (1,000) with both towers quantized, and the mean cosine of the image
embeddings to the float ones. Calibrated on 32 images and 100 captions of Flickr8k's dev split. "stressed" rows use
the equal float model with outlier channels and tokens of `vlmquant.models.stress`. Rows called w*a* quantize the
products of attention too; what the names list is on. A run that was stopped goes on from its `.partial.json`.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmquant import CalibrationSet, get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.data.captions import read_caption_table
from vlmquant.data.webdataset import read_webdataset
from vlmquant.metrics.intervals import bootstrap_mean
from vlmquant.models.clip import ClipModel
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.preprocess import preprocess, read_image
from vlmquant.models.stress import stressed
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipe import Recipe
from vlmquant.quantize.schemes import WeightScheme
from vlmquant.tasks.classification import embed_classes
from vlmquant.tasks.result import save_json

TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of the small {}.",
    "a {}.",
    "a picture of one {}.",
    "a low resolution photo of a {}.",
    "a cropped photo of the {}.",
)
BATCH = 8


@dataclass(frozen=True)
class Row:
    """One recipe, on the model as it is or on its stressed equal."""

    name: str
    recipe: Recipe
    stress: bool = False


@dataclass(frozen=True, kw_only=True)
class Data:
    """Test pictures as pixels, their labels, and what to calibrate on."""

    pixels: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    calibration: CalibrationSet


def rows() -> Iterator[Row]:
    for name in ("torch-dynamic", "vanilla-w8a8", "static-int8"):
        yield Row(name, get_recipe(name))
        yield Row(f"stressed {name}", get_recipe(name), stress=True)
    smooth = replace(get_recipe("static-int8"), smoothing=True)
    yield Row("stressed static-int8 + smoothing", smooth, stress=True)
    w4a8 = get_recipe("w4a8")
    yield Row("w4a8 gptq, mse scales, bias correction", w4a8)
    for step, weights in {
        "gptq, mse scales": w4a8.weights,
        "nearest, mse scales": WeightScheme(bits=4, scales="mse"),
        "nearest, max scales": WeightScheme(bits=4),
    }.items():
        yield Row(f"w4a8 {step}", replace(w4a8, weights=weights, bias_correction=False))
    int4 = get_recipe("int4-weights")
    yield Row("int4-weights gptq, mse scales", int4)
    yield Row(
        "int4-weights nearest, max scales",
        replace(int4, weights=replace(int4.weights, rounding="nearest", scales="max")),
    )
    for bits in (4, 6):
        yield Row(f"vanilla-w{bits}a{bits}", get_recipe(f"vanilla-w{bits}a{bits}"))
        full = get_recipe(f"twin-hessian-w{bits}a{bits}")
        full = replace(full, weights=WeightScheme(bits=bits), bias_correction=False, smoothing=False)
        yield Row(f"w{bits}a{bits} mse observer", replace(full, twin=False, search="none"))
        yield Row(f"w{bits}a{bits} twin", replace(full, search="none"))
        yield Row(f"w{bits}a{bits} hessian", replace(full, twin=False))
        yield Row(f"w{bits}a{bits} twin, hessian", full)
        second = replace(full, weights=WeightScheme(bits=bits, rounding="gptq"))
        yield Row(f"w{bits}a{bits} twin, hessian, gptq", second)
        yield Row(f"w{bits}a{bits} twin, hessian, gptq, bias correction", replace(second, bias_correction=True))
    for bits in (3, 2):
        yield Row(f"vanilla-w{bits}a{bits}", get_recipe(f"vanilla-w{bits}a{bits}"))


def read(shared: Path, model: ClipModel) -> Data:
    cifar = read_webdataset(shared / "cifar10")
    flickr, pictures = shared / "flickr8k", shared / "flickr8k" / "images"
    dev = read_caption_table(flickr / "captions.csv", pictures, split=flickr / "dev.txt")
    chosen = range(0, len(cifar.images), 10)
    return Data(
        pixels=np.stack([preprocess(cifar.images[i], model.image_spec) for i in chosen]),
        labels=np.asarray(cifar.labels)[::10],
        class_names=cifar.class_names,
        calibration=CalibrationSet(
            images=tuple(read_image(pictures / name) for name in dev.ids[:32]),
            texts=tuple(captions[0] for captions in dev.captions),
            images_from="32 images of Flickr8k dev",
            texts_from="100 captions of Flickr8k dev",
        ),
    )


def inputs(model: ClipModel, calibration: CalibrationSet) -> dict[str, list[Tensor]]:
    pixels = torch.from_numpy(np.stack([preprocess(image, model.image_spec) for image in calibration.images]))
    ids = sorted((model.tokenizer.encode_batch([text])[0] for text in calibration.texts), key=len)
    same = [torch.from_numpy(np.stack(list(group))) for _, group in groupby(ids, key=len)]
    return {"image": list(pixels.split(BATCH)), "text": [part for batch in same for part in batch.split(BATCH)]}


def embed(model: ClipModel, data: Data) -> tuple[np.ndarray, np.ndarray]:
    encoder: DualEncoder = model.encoder()
    images = np.concatenate([encoder.encode_pixels(part) for part in np.array_split(data.pixels, 25)])
    return images, embed_classes(encoder, data.class_names, TEMPLATES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.shared / "checkpoints" / "clip-real-tiny")
    data = read(arguments.shared, model)
    models = {False: model, True: stressed(model)}
    float_images, float_classes = embed(model, data)
    right = (float_images @ float_classes.T).argmax(axis=1) == data.labels
    calibrated = inputs(model, data.calibration)
    partial = arguments.output.with_suffix(".partial.json")
    results: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    for row in rows():
        if row.name in results:
            continue
        start = time.perf_counter()
        source = models[row.stress]
        towers = {
            "image_tower": quantize_tower(source.image_tower, row.recipe, calibrated["image"], row.name),
            "text_tower": quantize_tower(source.text_tower, row.recipe, calibrated["text"], row.name),
        }
        seconds = time.perf_counter() - start
        images, classes = embed(replace(source, **towers), data)
        now = (images @ classes.T).argmax(axis=1) == data.labels
        difference = bootstrap_mean(now.astype(np.float64) - right, np.arange(len(right)))
        results[row.name] = {
            "top1": float(now.mean()),
            "difference_points": 100 * difference.estimate,
            "low_points": 100 * difference.low,
            "high_points": 100 * difference.high,
            "image_cosine_mean": float(np.mean(np.sum(images * float_images, axis=1))),
            "class_cosine_mean": float(np.mean(np.sum(classes * float_classes, axis=1))),
            "quantize_seconds": seconds,
            "recipe": row.recipe.to_dict(),
        }
        print(row.name, json.dumps({k: v for k, v in results[row.name].items() if k != "recipe"}), flush=True)
        save_json(partial, results)
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "float_top1": float(right.mean()),
        "images": len(data.labels),
        "calibration": data.calibration.to_dict(),
        "rows": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


if __name__ == "__main__":
    main()
