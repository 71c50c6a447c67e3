"""`quantize_model`: checkpoint, recipe and calibration set in, proved bundle out."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmquant.bundle.export import export_tower
from vlmquant.bundle.manifest import MANIFEST, ComponentFacts, Manifest, file_facts
from vlmquant.bundle.probes import COUNT, PROBES, Probes, agreement, probe_images
from vlmquant.engines import engine, installed_engines, load
from vlmquant.errors import BundleError, CalibrationError, RecipeError
from vlmquant.models.clip import ClipModel
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import multiplications, quantize_tower
from vlmquant.quantize.calibration_set import CalibrationSet
from vlmquant.quantize.prompts import BUILTIN_PROMPTS
from vlmquant.quantize.recipe import COMPONENTS, Recipe, check_components, check_patterns, simulation_only

BATCH = 8
TOOLS = ("vlmquant", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy", "pillow")
# VPDPBUSD and its Arm cousin add U8 x S8 products in 32 bits; the older VPMADDUBSW saturates at 16.
EXACT_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "neon_dotprod")


@dataclass(frozen=True, eq=False)
class _Part:
    """One component on its way into a bundle: its towers before and after, and its calibration inputs."""

    component: str
    tower: nn.Module
    result: nn.Module
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
    output = Path(output)
    chosen = check_components(components)
    if reason := simulation_only(recipe):
        raise RecipeError(f"recipe {recipe.name!r} is simulation only: {reason}; it makes no bundle")
    towers = [model.image_tower if component == "image" else model.text_tower for component in chosen]
    check_patterns(recipe, [name for tower in towers for name in multiplications(tower)])
    if recipe.needs_calibration and calibration is None:
        raise CalibrationError(f"recipe {recipe.name!r} is measured on inputs; pass a calibration set (--calibrate)")
    _check_free(output, overwrite)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        parts = [_part(model, recipe, calibration, name, name in chosen, track) for name in COMPONENTS]
        _write(model, recipe, calibration, parts, chosen, temporary, track)
        if output.exists():
            shutil.rmtree(output)
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output


def _check_free(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not (output / MANIFEST).is_file():
        raise BundleError(f"{str(output)!r} exists and is not a bundle; choose another output folder")
    if not overwrite:
        raise BundleError(f"bundle {str(output)!r} exists; pass --overwrite or choose another output folder")


def _part(
    model: ClipModel, recipe: Recipe, calibration: CalibrationSet | None, component: str, chosen: bool, track: Track
) -> _Part:
    tower = model.image_tower if component == "image" else model.text_tower
    inputs = _inputs(model, calibration, component)
    if not chosen:
        return _Part(component, tower, tower, inputs)
    return _Part(
        component, tower, quantize_tower(tower, recipe, inputs, f"Calibrating the {component} tower", track), inputs
    )


def _inputs(model: ClipModel, calibration: CalibrationSet | None, component: str) -> list[Tensor]:
    """Return the calibration batches of a tower; texts are grouped by length, so that no range sees a pad token."""
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
    folder: Path,
    track: Track,
) -> None:
    texts = BUILTIN_PROMPTS if calibration is None else calibration.texts
    images = probe_images(() if calibration is None else calibration.images, model.image_spec)
    probes = Probes(images, model.tokenizer.encode_batch(texts[:COUNT]), {}, {})
    expected: dict[str, FloatArray] = {}
    float_expected: dict[str, FloatArray] = {}
    components: dict[str, ComponentFacts] = {}
    for part in track(parts, "Exporting and proving on every engine", len(parts)):
        path = folder / f"{part.component}.onnx"
        export_tower(part.result, part.inputs[0][:2], (0, 1) if part.component == "text" else (0,), path)
        probe = probes.inputs(part.component, model.image_spec)
        expected[part.component] = _run(part.result, torch.from_numpy(probe))
        float_expected[part.component] = _run(part.tower, torch.from_numpy(probe))
        components[part.component] = ComponentFacts(
            file=path.name,
            precision=recipe.name if part.component in chosen else "float32",
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
        source={"name": model.name, "weights_sha256": model.weights_sha256, "random_weights": model.random_weights},
        recipe=recipe.to_dict(),
        calibration=None if calibration is None else calibration.to_dict(),
        logit_scale=model.logit_scale,
        components=components,
        requires_any_of=EXACT_DOT_PRODUCTS if recipe.multiplies_8_bits else (),
        files={path.name: file_facts(path) for path in sorted(folder.iterdir())},
        tools={tool: version(tool) for tool in TOOLS},
    ).write(folder)


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
