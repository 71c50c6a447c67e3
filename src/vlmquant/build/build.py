"""`quantize_model`: checkpoint, recipe and calibration set in, proved bundle out."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmquant.build.export import export_tower
from vlmquant.build.overflow import required_instruction_sets
from vlmquant.bundle.manifest import MANIFEST, ComponentFacts, Manifest, file_facts
from vlmquant.bundle.probes import COUNT, PROBES, Probes, agreement, probe_images
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.engines import engine, installed_engines, load
from vlmquant.errors import BundleError, CalibrationError, RecipeError
from vlmquant.models.preprocess import preprocess
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import quantize_by_damage
from vlmquant.quantize.attention import plain_attention
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, check_components, check_patterns, simulation_only
from vlmquant.quantize.sites import multiplications

BATCH = 8
TOOLS = ("vlmquant", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy", "pillow")


@dataclass(frozen=True, eq=False)
class _Part:
    """One component on its way into a bundle: its towers before and after, its calibration inputs, what was done.

    `recipe` is the one that was carried out, None where the component stays float32.
    """

    component: str
    tower: nn.Module
    result: nn.Module
    recipe: Recipe | None
    inputs: Sequence[Tensor]


def quantize_model(
    model: ClipModel,
    recipe: Recipe,
    calibration: CalibrationSet | None,
    output: str | Path,
    *,
    components: tuple[str, ...] = COMPONENTS,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Quantize `components` of `model` by `recipe`, prove the result on every installed engine, write it to `output`.

    A component that is not chosen goes in as float32. `calibration` may be None only for a recipe that measures
    nothing. The folder appears whole or not at all, and an existing one is refused unless `overwrite` and a bundle.
    Raises CalibrationError, RecipeError, BundleError.
    """
    chosen = check_components(components)
    check_exportable(model, recipe, calibration, chosen)
    check_free(Path(output), overwrite)
    quantized = {
        component: quantize_by_damage(
            model_tower(model, component),
            recipe,
            calibration_inputs(model, calibration, component),
            f"Calibrating the {component} tower",
            track,
        )
        for component in chosen
    }
    return write_bundle(model, recipe, calibration, quantized, output, overwrite=overwrite, track=track)


def write_bundle(
    model: ClipModel,
    recipe: Recipe,
    calibration: CalibrationSet | None,
    quantized: Mapping[str, tuple[nn.Module, Recipe]],
    output: str | Path,
    *,
    recovered: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Prove the `quantized` towers of `model` on every installed engine and write the bundle `output`.

    `quantized` holds, by component, the tower and the recipe that was carried out on it, a form of `recipe`.
    `recovered` says how the weights were tuned before that, for the manifest's `source`. See `quantize_model`.
    """
    output = Path(output)
    check_free(output, overwrite)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        parts = []
        for component in COMPONENTS:
            tower, inputs = model_tower(model, component), calibration_inputs(model, calibration, component)
            result, carried_out = quantized.get(component, (tower, None))
            parts.append(_Part(component, tower, result, carried_out, inputs))
        chosen = tuple(part.component for part in parts if part.recipe is not None)
        _write(model, recipe, calibration, parts, chosen, recovered, temporary, track)
        if output.exists():
            shutil.rmtree(output)
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output


def check_exportable(
    model: ClipModel, recipe: Recipe, calibration: CalibrationSet | None, components: tuple[str, ...]
) -> None:
    """Raise RecipeError or CalibrationError where `recipe` cannot make a bundle of these components of `model`."""
    if reason := simulation_only(recipe):
        raise RecipeError(f"recipe {recipe.name!r} is simulation only: {reason}; it makes no bundle")
    check_patterns(recipe, [name for part in components for name in multiplications(model_tower(model, part))])
    if recipe.needs_calibration and calibration is None:
        raise CalibrationError(f"recipe {recipe.name!r} is measured on inputs; pass a calibration set (--calibrate)")


def model_tower(model: ClipModel, component: str) -> nn.Module:
    """Return the float tower of a component."""
    return model.image_tower if component == "image" else model.text_tower


def check_free(output: Path, overwrite: bool) -> None:
    """Raise BundleError where `output` exists, unless it is a bundle and `overwrite`."""
    if not output.exists():
        return
    if not (output / MANIFEST).is_file():
        raise BundleError(f"{str(output)!r} exists and is not a bundle; choose another output folder")
    if not overwrite:
        raise BundleError(f"bundle {str(output)!r} exists; pass --overwrite or choose another output folder")


def calibration_inputs(model: ClipModel, calibration: CalibrationSet | None, component: str) -> list[Tensor]:
    """Return the calibration inputs of the tower called `component` in batches of 8: pixels or token ids.

    Texts are grouped by length, so that no range sees a pad token. Without a set, or without images in it, the probe
    images and the built-in prompts serve.
    """
    if component == "text":
        texts = BUILTIN_PROMPTS if calibration is None else calibration.texts
        rows = sorted((model.tokenizer.encode_batch([text])[0] for text in texts), key=len)
        return [
            torch.from_numpy(np.stack(same[start : start + BATCH]))
            for _, group in groupby(rows, key=len)
            for same in [list(group)]
            for start in range(0, len(same), BATCH)
        ]
    images = () if calibration is None else calibration.images
    pictures = images or tuple(probe_images((), model.image_spec))
    pixels = [preprocess(image, model.image_spec) for image in pictures]
    return [torch.from_numpy(np.stack(pixels[start : start + BATCH])) for start in range(0, len(pixels), BATCH)]


def _write(
    model: ClipModel,
    recipe: Recipe,
    calibration: CalibrationSet | None,
    parts: Sequence[_Part],
    chosen: tuple[str, ...],
    recovered: Mapping[str, Any] | None,
    folder: Path,
    track: Track,
) -> None:
    source = {"name": model.name, "weights_sha256": model.weights_sha256, "random_weights": model.random_weights}
    texts = BUILTIN_PROMPTS if calibration is None else calibration.texts
    images = probe_images(() if calibration is None else calibration.images, model.image_spec)
    probes = Probes(images, model.tokenizer.encode_batch(texts[:COUNT]), {}, {})
    expected: dict[str, FloatArray] = {}
    float_expected: dict[str, FloatArray] = {}
    components: dict[str, ComponentFacts] = {}
    for part in track(parts, "Exporting and proving on every engine", len(parts)):
        path = folder / f"{part.component}.onnx"
        with plain_attention(part.result):
            export_tower(part.result, part.inputs[0][:2], (0, 1) if part.component == "text" else (0,), path)
        probe = probes.inputs(part.component, model.image_spec)
        expected[part.component] = _run(part.result, torch.from_numpy(probe))
        float_expected[part.component] = _run(part.tower, torch.from_numpy(probe))
        components[part.component] = ComponentFacts(
            file=path.name,
            precision=recipe.name if part.component in chosen else "float32",
            smoothed=part.recipe is not None and part.recipe.smoothing,
            kept_float=() if part.recipe is None else part.recipe.keep_float,
            fidelity=_fidelity(part),
            parity={
                name: agreement(_on_engine(path, name, probe), expected[part.component]) for name in installed_engines()
            },
            integer_mac_share={name: engine(name).audit(path, probe[:1]).int8_share for name in installed_engines()},
        )
    Probes(probes.images, probes.ids, expected, float_expected).save(folder / PROBES)
    model.save_preprocessing(folder)
    Manifest(
        name=f"{model.name} {recipe.name}" + ("" if chosen == COMPONENTS else f" ({chosen[0]} only)"),
        source=source if recovered is None else {**source, "recovered": dict(recovered)},
        recipe=_carried_out(recipe, parts).to_dict(),
        calibration=None if calibration is None else calibration.to_dict(),
        logit_scale=model.logit_scale,
        components=components,
        requires_any_of=required_instruction_sets(folder / part.file for part in components.values()),
        files={path.name: file_facts(path) for path in sorted(folder.iterdir())},
        tools={tool: version(tool) for tool in TOOLS},
    ).write(folder)


def _carried_out(recipe: Recipe, parts: Sequence[_Part]) -> Recipe:
    """Return `recipe` as it was carried out: with every layer that outlier handling left in float, in either tower."""
    done = [part.recipe for part in parts if part.recipe is not None]
    return replace(
        recipe,
        outliers=None,
        smoothing=any(found.smoothing for found in done),
        keep_float=tuple(dict.fromkeys(pattern for found in done for pattern in found.keep_float)),
    )


def _fidelity(part: _Part) -> dict[str, float]:
    pairs = [(_run(part.result, batch), _run(part.tower, batch)) for batch in part.inputs]
    return agreement(np.concatenate([new for new, _ in pairs]), np.concatenate([old for _, old in pairs]))


def _run(tower: nn.Module, batch: Tensor) -> FloatArray:
    with torch.inference_mode():
        rows: Any = tower(batch)
    return np.asarray(rows.numpy(), dtype=np.float32)


def _on_engine(path: Path, name: str, probe: Any) -> FloatArray:
    with load(path, name, None) as session:
        return session(probe)
