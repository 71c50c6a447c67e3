"""What each step of a quantization method buys, in simulation (torch): presets in full, ablations on a subset.

    python -m benchmarks methods real   -o benchmarks/results/methods-real-tiny.json --shared ../shared/data
    python -m benchmarks methods street -o benchmarks/results/methods-street.json --images 1000 --captioned 400

Zero-shot top-1 and retrieval with both towers quantized, against float on the same samples (points, 95 % interval of
the paired difference), and the mean cosine of embeddings to the float ones, which tells apart what the scores cannot.
Data and calibration are those of `accuracy`. "preset" rows are scored on all labelled images, "ablation" and
"stressed" rows on the first `--images` of them; retrieval always on the whole captioned set. An ablation row is the
base of its width with what its name lists switched on; w8a8, w6a6 and w4a4 quantize the products of attention too.
"stressed" rows use the equal float model with outliers of `vlmquant.lab.stress`. "compensation" and "equal" rows have
files of their own (`--only compensation -o benchmarks/results/compensation-street.json`, and `equal-street.json`). A
row is written when it is done, and a run that was stopped goes on from its `.partial.json`; `--only TEXT` runs the rows
whose name contains TEXT.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.data import DATA, add_data
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import Rows, Subject, compared, encode, mean_cosines, score, show, subject_of
from benchmarks.towers import simulated
from vlmquant import get_recipe
from vlmquant.lab.stress import stressed
from vlmquant.metrics.intervals import paired_mean
from vlmquant.quantize.methods.compensation import BLOCKS, CHANNELS
from vlmquant.quantize.recipes.recipe import ENDS_IN_8_BITS, Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme, WeightScheme

PRESETS = (
    "torch-dynamic",
    "static-int8",
    *(f"vanilla-w{bits}a{bits}" for bits in (8, 6, 4, 3, 2)),
    *(f"twin-hessian-w{bits}a{bits}" for bits in (8, 6, 4)),
    "w4a8",
    "int4-weights",
)
COMPENSATED = ("vanilla-w8a8", "vanilla-w6a6", "w4a8", "vanilla-w4a4")
STRESSED = ("torch-dynamic", "vanilla-w8a8", "static-int8", "w4a8")
ABLATION_IMAGES = 2000


@dataclass(frozen=True)
class Row:
    """One recipe, on the model as it is or on its equal with outliers.

    `kind` is "preset", "ablation", "stressed", "compensation" or "equal". `against` names the row of the same kind,
    before this one, that it is compared with as well, picture by picture.
    """

    kind: str
    name: str
    recipe: Recipe
    stressed: bool = False
    against: str | None = None


def rows() -> Iterator[Row]:
    for name in PRESETS:
        yield Row("preset", name, get_recipe(name))
    for bits in (8, 6, 4):
        yield from _ablation(bits)
    yield from _ablation_of_w4a8()
    for name in STRESSED:
        yield Row("stressed", name, get_recipe(name), stressed=True)
    static = replace(get_recipe("static-int8"), outliers=None)
    yield Row("stressed", "static-int8 without outlier handling", static, stressed=True)
    smoothed = replace(static, smoothing=True)
    yield Row("stressed", "static-int8 without outlier handling + smoothing", smoothed, stressed=True)
    yield from _compensation()
    yield from _equal()


def _compensation() -> Iterator[Row]:
    """What a linear map behind the quantized layers takes back: QwT and its channel-wise form."""
    for name in COMPENSATED:
        base = replace(get_recipe(name), outliers=None)
        for stress in (False, True):
            title = f"{name} with outliers" if stress else name
            yield Row("compensation", title, base, stressed=stress)
            for step in (CHANNELS, BLOCKS):
                recipe = replace(base, steps=(step,))
                yield Row("compensation", f"{title}, {step}", recipe, stressed=stress, against=title)


def _equal() -> Iterator[Row]:
    """Twin ranges and the Hessian search at four bits against the same without them: all else is equal."""
    base = next(row.recipe for row in _ablation(4) if row.name.endswith("base"))
    extras: dict[str, dict[str, Any]] = {
        "neither": {},
        "twin": {"twin": True},
        "hessian": {"search": "hessian"},
        "twin, hessian": {"twin": True, "search": "hessian"},
    }
    for products in (True, False):
        where = "products of attention too" if products else "products of attention in float"
        for name, extra in extras.items():
            recipe = replace(base, attention_matmuls=products, **extra)
            yield Row("equal", f"{where}, {name}", recipe, against=f"{where}, neither" if extra else None)


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
            weights = WeightScheme(bits=bits, scales="mse", rounding=rounding)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--images", type=int, default=ABLATION_IMAGES, help="labelled images of an ablation row")
    parser.add_argument("--captioned", type=int, help="captioned images of every row; all when left out")
    parser.add_argument("--only", default="", help="run the rows whose kind and name contain this")
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    data = DATA[arguments.data](arguments.shared).limited(arguments.limit).first_captioned(arguments.captioned)
    subject = subject_of(data)
    every = len(data.images)
    few = min(arguments.images, every)
    head = {"labelled_images": {"preset": every, "others": few}, "captioned_images": len(data.captioned)}
    result = ResultFile(arguments.output, {**subject.facts(), **head})
    before = encode(subject.model.encoder(), subject)
    for row in rows():
        key = f"{row.kind} {row.name}"
        if arguments.only in key and key not in result.rows:
            count = every if row.kind == "preset" else few
            found = measured(row, subject.first_labelled(count), first_labelled(before, count))
            if row.against is not None:
                found["gain"] = gain(found, result.rows[f"{row.kind} {row.against}"])
            result.add(key, found)
            show(key, found["both"])
            print(f"{key:40} {found['image_cosine_mean']:.5f} {found['text_cosine_mean']:.5f} mean cosines", flush=True)
    result.save({"rows": result.rows})


def gain(found: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float]:
    """Return top-1 minus that of another row in points, with the 95 % interval of the paired difference."""
    difference = np.subtract(found["top1_right"], base["top1_right"])
    interval = paired_mean(difference, np.arange(len(difference)))
    return {f"{name}_points": 100 * value for name, value in asdict(interval).items()}


def first_labelled(found: Rows, count: int) -> Rows:
    return replace(found, images=found.images[:count])


def measured(row: Row, subject: Subject, before: Rows) -> dict[str, Any]:
    start = time.perf_counter()
    model = stressed(subject.model) if row.stressed else subject.model
    tuned = simulated(model, row.recipe, subject.data.calibration)
    seconds = time.perf_counter() - start
    after = encode(tuned.encoder(), subject)
    results = score(after, after, subject.data)
    return {
        **mean_cosines(after, before),
        "both": compared(results, score(before, before, subject.data)),
        "top1_right": np.round(results[0].outcomes["top1"].values, 3).tolist(),
        "quantize_seconds": seconds,
        "score_seconds": time.perf_counter() - start - seconds,
        "recipe": row.recipe.to_dict(),
    }
