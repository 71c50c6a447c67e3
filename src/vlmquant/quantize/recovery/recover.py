"""Recovering what a recipe costs: short quantization-aware fine-tuning without labels.

The float model teaches its own quantized copy: both see the same unlabelled images and texts, and the copy's weights
move until its embeddings, and the softmax over their similarities, are the float model's again (distillation: Hinton
et al. 2015, arXiv 1503.02531). Rounding passes the gradient on as if it were the identity (Bengio et al. 2013,
arXiv 1308.3432). What is trained is an ordinary float model; the recipe then quantizes that one as it would any other.
Where the recipe prunes, the copy is pruned first, and taught by the whole model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.checkpoints.checkpoint import usable_device
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import CalibrationError, RecipeError
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import pruned_first, quantize_tower
from vlmquant.quantize.damage import cosine_loss, up_to
from vlmquant.quantize.recipes.recipe import Recipe, check_components
from vlmquant.quantize.recovery.student import CALIBRATION_INPUTS, Student, without_moving_weights
from vlmquant.quantize.recovery.tuning import RecoverySettings, Tuning

STATE = "recovery.pt"
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 64
FEWEST_INPUTS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovered:
    """The tuned float `model`, the `recipe` to quantize it by, and what the manifest says about the tuning.

    Smoothing and outlier handling are already in the model or spelled out in the recipe; `towers` are the components
    quantized by it. In `facts`, `loss_before` and `loss_after` are 1 - mean cosine to the float model, by component,
    on inputs that were not trained on.
    """

    model: ClipModel
    towers: dict[str, nn.Module]
    recipe: Recipe
    facts: dict[str, Any]


def recover(
    model: ClipModel,
    recipe: Recipe,
    inputs: Mapping[str, Sequence[Tensor]],
    settings: RecoverySettings | None = None,
    *,
    work: Path | None = None,
    track: Track = silent,
) -> Recovered:
    """Tune the towers of `model` named in `inputs` ("image", "text") so that `recipe` costs less; `model` stays as is.

    `inputs` are unlabelled batches: float32 pixels (n, 3, height, width), int64 ids (n, length) of one length each. A
    tenth of them is held out to tell what the tuning did. With `work`, the state is saved there every minute, and a
    stopped run of the same model, recipe, inputs and settings goes on. Raises CalibrationError with too few inputs,
    RecipeError for a recipe that rounds no integers, ModelError for a device that is not there.
    """
    settings = settings or RecoverySettings()
    if recipe.steps:
        raise RecipeError(
            f"recipe {recipe.name!r} has steps {', '.join(recipe.steps)}, which could move the tuned weights again; "
            "recover with a recipe without `steps`"
        )
    if not recipe.integer_weights:
        raise RecipeError(f"recipe {recipe.name!r} keeps {recipe.weights.number} weights; there is nothing to recover")
    device = usable_device(_device_name(settings.device))
    chosen = check_components(tuple(inputs))
    towers = {component: _tower(model, component) for component in chosen}
    trained, held_out = {}, {}
    for component in chosen:
        trained[component], held_out[component] = split_inputs(component, inputs[component])
    rest = replace(recipe, prune=0.0)
    starts = {
        name: pruned_first(towers[name], recipe, up_to(trained[name], CALIBRATION_INPUTS), name.capitalize(), track)[0]
        for name in chosen
    }
    before = {
        name: _loss(towers[name], _quantized(starts[name], rest, trained[name], track), held_out[name])
        for name in chosen
    }
    students = {name: Student(starts[name], rest, trained[name], device, track) for name in chosen}
    tuning = Tuning(towers, model.logit_scale, students, trained, settings, device)
    key = hashlib.sha256(repr((model.identity, recipe, asdict(settings), _digest(inputs))).encode()).hexdigest()
    tuning.train(None if work is None else work / STATE, key, track)
    # Each tower has its own layers, so what was spelled out for one tower's names concerns no other.
    kept_float = dict.fromkeys(pattern for student in students.values() for pattern in student.recipe.keep_float)
    final = replace(without_moving_weights(rest), keep_float=tuple(kept_float))
    tuned = {name: student.latent.cpu() for name, student in students.items()}
    quantized = {name: _quantized(tuned[name], final, trained[name], track) for name in chosen}
    after = {name: _loss(towers[name], quantized[name], held_out[name]) for name in chosen}
    facts = {
        "steps": tuning.steps_done,
        "seconds": round(tuning.seconds, 1),
        "device": str(device),
        "batch": settings.batch,
        "learning_rate": settings.learning_rate,
        "inputs": {name: sum(map(len, inputs[name])) for name in chosen},
        "inputs_sha256": _digest(inputs),
        **({"pruned": recipe.prune} if recipe.prune else {}),
        "loss_before": before,
        "loss_after": after,
    }
    both = replace(
        model,
        image_tower=tuned.get("image", model.image_tower),
        text_tower=tuned.get("text", model.text_tower),
    )
    return Recovered(model=both, towers=quantized, recipe=final, facts=facts)


def _quantized(tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], track: Track) -> nn.Module:
    return quantize_tower(tower, recipe, up_to(inputs, CALIBRATION_INPUTS), "Quantizing", track)


def _loss(teacher: nn.Module, tower: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return 1 - mean cosine of what `tower` gives for `inputs` to what `teacher` does."""
    with torch.inference_mode():
        rows = torch.cat([functional.normalize(tower(batch), dim=-1) for batch in inputs])
        expected = torch.cat([functional.normalize(teacher(batch), dim=-1) for batch in inputs])
    return cosine_loss(rows, expected)


def split_inputs(component: str, batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split batches into those to train on and about a tenth, spread evenly, that are held out."""
    count = sum(map(len, batches))
    if count < FEWEST_INPUTS or len(batches) < 2:
        raise CalibrationError(
            f"recovery needs at least {FEWEST_INPUTS} {component}s in two batches, got {count}; hundreds are better"
        )
    wanted = min(MOST_HELD_OUT, max(1, int(HELD_OUT_SHARE * count)))
    spacing = max(2, len(batches) * len(batches[0]) // wanted)
    every = max(2, spacing // len(batches[0]))
    held_out = list(batches)[every - 1 :: every]
    return [batch for index, batch in enumerate(batches) if index % every != every - 1], held_out


def _tower(model: ClipModel, component: str) -> nn.Module:
    return model.image_tower if component == "image" else model.text_tower


def _device_name(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _digest(inputs: Mapping[str, Sequence[Tensor]]) -> str:
    sha = hashlib.sha256()
    for name in sorted(inputs):
        for batch in inputs[name]:
            sha.update(name.encode() + repr(tuple(batch.shape)).encode() + batch.numpy().tobytes())
    return sha.hexdigest()
