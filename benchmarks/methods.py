"""What each step of a quantization method buys, in simulation (torch): presets in full, ablations on a subset.

    python benchmarks/methods.py real   -o benchmarks/results/methods-real-tiny.json --shared ../shared/data
    python benchmarks/methods.py street -o benchmarks/results/methods-street.json

Zero-shot top-1 and retrieval with both towers quantized, against float on the same samples (points, 95 % interval of
the paired difference), and the mean cosine of embeddings to the float ones, which tells apart what the scores cannot.
Data and calibration are those of `accuracy.py`. "preset" rows are scored on all labelled images, "ablation" and
"stressed" rows on the first `--images` of them; retrieval always on the whole captioned set. An ablation row is the
base of its width with what its name lists switched on; w8a8, w6a6 and w4a4 quantize the products of attention too.
"stressed" rows use the equal float model with outliers of `vlmquant.lab.stress`. A row is written when it is done,
and a run that was stopped goes on from its `.partial.json`; `--only TEXT` runs the rows whose name contains TEXT.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import DATA, Data, Pixels, Rows, encode, limited, preprocessed, rows_of, score

from vlmquant import get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.lab.stress import stressed
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import ENDS_IN_8_BITS, Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme, WeightScheme
from vlmquant.tasks.result import save_json

PRESETS = (
    "torch-dynamic",
    "static-int8",
    *(f"vanilla-w{bits}a{bits}" for bits in (8, 6, 4, 3, 2)),
    *(f"twin-hessian-w{bits}a{bits}" for bits in (8, 6, 4)),
    "w4a8",
    "int4-weights",
)
STRESSED = ("torch-dynamic", "vanilla-w8a8", "static-int8", "w4a8")
ABLATION_IMAGES = 2000


@dataclass(frozen=True)
class Row:
    """One recipe; `kind` is "preset", "ablation" or "stressed"."""

    kind: str
    name: str
    recipe: Recipe


def rows() -> Iterator[Row]:
    for name in PRESETS:
        yield Row("preset", name, get_recipe(name))
    for bits in (8, 6, 4):
        yield from _ablation(bits)
    yield from _ablation_of_w4a8()
    for name in STRESSED:
        yield Row("stressed", name, get_recipe(name))
    static = replace(get_recipe("static-int8"), outliers=None)
    yield Row("stressed", "static-int8 without outlier handling", static)
    yield Row("stressed", "static-int8 without outlier handling + smoothing", replace(static, smoothing=True))


def _ablation(bits: int) -> Iterator[Row]:
    """Steps on top of: weights per channel, nearest, max scales; activations by least squared error."""
    base = Recipe(
        name=f"w{bits}a{bits}",
        description="ablation",
        weights=WeightScheme(bits=bits),
        activations=ActivationScheme(bits=bits),
        attention_matmuls=True,
        overrides=ENDS_IN_8_BITS if bits < 8 else (),
    )
    steps: dict[str, Recipe] = {
        "base": base,
        "min/max ranges": replace(base, activations=ActivationScheme(bits=bits, observer="minmax")),
        "per head": replace(base, activations=ActivationScheme(bits=bits, granularity="head")),
        "twin": replace(base, twin=True),
        "hessian": replace(base, search="hessian"),
        "twin, hessian": replace(base, twin=True, search="hessian"),
        "smoothing": replace(base, smoothing=True),
        "bias correction": replace(base, bias_correction=True),
    }
    if bits < 8:
        steps["mse scales"] = replace(base, weights=WeightScheme(bits=bits, scales="mse"))
        for rounding in ("gptq", "reconstruction"):
            weights = WeightScheme(bits=bits, scales="mse", rounding=rounding)  # type: ignore[arg-type]
            steps[f"mse scales, {rounding}"] = replace(base, weights=weights)
            steps[f"twin, hessian, {rounding}"] = replace(base, weights=weights, twin=True, search="hessian")
    for name, recipe in steps.items():
        yield Row("ablation", f"w{bits}a{bits}: {name}", recipe)


def _ablation_of_w4a8() -> Iterator[Row]:
    base = replace(get_recipe("w4a8"), weights=WeightScheme(bits=4), bias_correction=False, outliers=None)
    for scales, rounding in (("max", "nearest"), ("mse", "nearest"), ("mse", "gptq"), ("mse", "reconstruction")):
        weights = WeightScheme(bits=4, scales=scales, rounding=rounding)  # type: ignore[arg-type]
        recipe = replace(base, weights=weights)
        yield Row("ablation", f"w4a8: {scales} scales, {rounding}", recipe)
        if rounding != "nearest":
            corrected = replace(recipe, bias_correction=True)
            yield Row("ablation", f"w4a8: {scales} scales, {rounding}, bias correction", corrected)
    yield Row("ablation", "w4a8: max scales, nearest, smoothing", replace(base, smoothing=True))


def quantized(model: ClipModel, row: Row, data: Data) -> ClipModel:
    towers = {
        component: quantize_tower(tower, row.recipe, calibration_inputs(model, data.calibration, component), row.name)
        for component, tower in (("image", model.image_tower), ("text", model.text_tower))
    }
    return replace(model, image_tower=towers["image"], text_tower=towers["text"])


def first(rows: Rows, count: int) -> Rows:
    return replace(rows, images=rows.images[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=ABLATION_IMAGES, help="labelled images of an ablation row")
    parser.add_argument("--preset-images", type=int, help="labelled images of a preset row; all when left out")
    parser.add_argument("--captioned", type=int, help="captioned images of every row; all when left out")
    parser.add_argument("--only", default="", help="run the rows whose kind and name contain this")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = DATA[arguments.data](arguments.shared)
    most = len(data.images) if arguments.preset_images is None else arguments.preset_images
    data = replace(limited(data, arguments.captioned), images=data.images[:most], labels=np.asarray(data.labels)[:most])
    model = load_model(data.checkpoint)
    pixels = preprocessed(data, model.image_spec)
    before = encode(model.encoder(), data, pixels)
    wanted = [row for row in rows() if arguments.only in f"{row.kind} {row.name}"]
    partial = arguments.output.with_suffix(".partial.json")
    results: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    for row in wanted:
        key = f"{row.kind} {row.name}"
        if key not in results:
            count = most if row.kind == "preset" else min(arguments.images, most)
            subset = replace(data, images=data.images[:count], labels=data.labels[:count])
            results[key] = result_of(model, row, subset, Pixels(pixels.images[:count], pixels.captioned), before)
            save_json(partial, results)
            show(key, results[key])
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "calibration": data.calibration.to_dict(),
        "labelled_images": {"preset": most, "others": min(arguments.images, most)},
        "captioned_images": len(data.captioned),
        "rows": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink(missing_ok=True)


def result_of(model: ClipModel, row: Row, data: Data, pixels: Pixels, before: Rows) -> dict[str, Any]:
    start = time.perf_counter()
    tuned = quantized(stressed(model) if row.kind == "stressed" else model, row, data)
    seconds = time.perf_counter() - start
    after = encode(replace(tuned.encoder(), name=row.name), data, pixels)
    expected = first(before, len(data.images))
    return {
        "image_cosine_mean": float(np.mean(np.sum(expected.images * after.images, axis=1))),
        "text_cosine_mean": float(np.mean(np.sum(expected.captions * after.captions, axis=1))),
        "both": rows_of(score(after, after, data), score(expected, expected, data)),
        "quantize_seconds": seconds,
        "score_seconds": time.perf_counter() - start - seconds,
        "recipe": row.recipe.to_dict(),
    }


def show(key: str, result: dict[str, Any]) -> None:
    scores = "  ".join(
        f"{metric} {row['int8']:.4f} ({row['difference_points']:+.2f} [{row['low_points']:+.2f}, "
        f"{row['high_points']:+.2f}])"
        for metric, row in result["both"].items()
        if metric == "top1" or metric.endswith(("_r1", "_r5"))
    )
    cosines = f"{result['image_cosine_mean']:.5f} {result['text_cosine_mean']:.5f}"
    print(f"{key:50} cosines {cosines}  {scores}  {result['quantize_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
