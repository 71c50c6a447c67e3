"""`quantize_blip`: a BLIP, a recipe for each component and a calibration set in, proved bundle out."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlmquant.build.blip_export import export_blip_graph, graph_examples
from vlmquant.build.build import BATCH, TOOLS, check_free
from vlmquant.build.overflow import required_instruction_sets
from vlmquant.bundle.blip_probes import BlipProbes, BlipResults, run_probes, save_probes
from vlmquant.bundle.blip_runtime import graph_file, load_runner
from vlmquant.bundle.manifest import ComponentFacts, Manifest, file_facts
from vlmquant.bundle.placement import Placement
from vlmquant.bundle.probes import PROBES, agreement, probe_images
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.blip_inputs import (
    COMPONENTS,
    BlipPart,
    blip_parts,
    component_tower,
    components_of,
    suited,
)
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.engines import engine, installed_engines
from vlmquant.errors import CalibrationError, RecipeError, unknown
from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_QUESTIONS
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import quantize_by_damage
from vlmquant.quantize.recipes.recipe import ENDS_IN_8_BITS, Recipe, check_patterns, simulation_only
from vlmquant.quantize.sites import multiplications

JUDGED = 8
"""So many inputs of a component tell how near the simulation comes to the float model."""


@dataclass(frozen=True, eq=False)
class _Done:
    """A component before and after, and the recipe that was carried out on it; None where it stays float32."""

    part: BlipPart
    result: nn.Module
    recipe: Recipe | None


def quantize_blip(
    model: BlipModel,
    recipes: Mapping[str, Recipe],
    calibration: CalibrationSet | None,
    output: str | Path,
    *,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Quantize each component of `model` by its own recipe, prove the result on every engine, write it to `output`.

    A component that `recipes` does not name goes in as float32. `calibration` may be None only where no recipe
    measures anything. The folder appears whole or not at all, and an existing one is refused unless `overwrite` and a
    bundle. Raises CalibrationError, RecipeError, BundleError.
    """
    output = Path(output)
    check_recipes(model, recipes, calibration)
    check_free(output, overwrite)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        stand_in = CalibrationSet(tuple(probe_images((), model.image_spec)), BUILTIN_PROMPTS, "noise", "")
        inputs = suited(model, calibration if calibration and calibration.images else stand_in)
        parts = blip_parts(model, inputs, BATCH, track)
        done = [_quantized(part, recipes.get(part.component), track) for part in parts]
        _write(model, recipes, calibration and inputs, done, temporary, track)
        if output.exists():
            shutil.rmtree(output)
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output


def check_recipes(model: BlipModel, recipes: Mapping[str, Recipe], calibration: CalibrationSet | None) -> None:
    """Raise RecipeError or CalibrationError where these recipes cannot make a bundle of `model`."""
    present = components_of(model)
    if not recipes:
        raise RecipeError(f"no component to quantize; choose from {', '.join(present)}")
    for component, recipe in recipes.items():
        if component not in present:
            raise unknown(RecipeError, f"component of a BLIP for {model.kind}", component, present)
        if reason := simulation_only(recipe):
            raise RecipeError(f"recipe {recipe.name!r} is simulation only: {reason}; it makes no bundle")
        # Presets speak of the ends of a CLIP, of which a BLIP has the first only.
        own = replace(recipe, overrides=tuple(site for site in recipe.overrides if site not in ENDS_IN_8_BITS))
        check_patterns(own, multiplications(component_tower(model, component)))
        if recipe.needs_calibration and calibration is None:
            raise CalibrationError(
                f"recipe {recipe.name!r} is measured on inputs; pass a calibration set (--calibrate)"
            )


def _quantized(part: BlipPart, recipe: Recipe | None, track: Track) -> _Done:
    if recipe is None:
        return _Done(part, part.tower, None)
    inputs: Any = part.inputs
    description = f"Calibrating {part.component.replace('_', ' ')}"
    return _Done(part, *quantize_by_damage(part.tower, recipe, inputs, description, track))


def _write(
    model: BlipModel,
    recipes: Mapping[str, Recipe],
    calibration: CalibrationSet | None,
    done: Sequence[_Done],
    folder: Path,
    track: Track,
) -> None:
    images = probe_images(() if calibration is None else calibration.images, model.image_spec)
    probes = BlipProbes(images, np.tile(np.array(_probe_ids(model), dtype=np.int64), (len(images), 1)))
    simulated = simulation(model, {one.part.component: one.result for one in done})
    expected, float_expected = run_probes(simulated, probes), run_probes(model.runner(), probes)
    model.save_preprocessing(folder)
    examples = graph_examples(model)
    for one in track(done, "Exporting", len(done)):
        for graph in COMPONENTS[one.part.component]:
            export_blip_graph(one.result.get_submodule(graph), examples[graph], folder / graph_file(graph))
    generation = {"start_id": model.start_id, "end_id": model.end_id, "pad_id": model.pad_id}
    engines = installed_engines()
    found = {
        name: run_probes(_on_engine(folder, name, model, generation), probes)
        for name in track(engines, "Proving on every engine", len(engines))
    }
    components = {
        graph: ComponentFacts(
            file=graph_file(graph),
            precision="float32" if one.recipe is None else one.recipe.name,
            smoothed=one.recipe is not None and one.recipe.smoothing,
            kept_float=() if one.recipe is None else one.recipe.keep_float,
            fidelity=_fidelity(one),
            parity={name: _parity(graph, results, expected) for name, results in found.items()},
            integer_mac_share={
                name: engine(name).audit(folder / graph_file(graph), *examples[graph].audited).int8_share
                for name in engines
            },
        )
        for one in done
        for graph in COMPONENTS[one.part.component]
    }
    save_probes(folder / PROBES, probes, expected, float_expected)
    carried_out = {graph: one.recipe for one in done for graph in COMPONENTS[one.part.component]}
    title = recipes_in_words(model, recipes)
    Manifest(
        name=f"{model.name} {title}",
        source={"name": model.name, "weights_sha256": model.weights_sha256, "random_weights": model.random_weights},
        recipe={
            "name": title,
            "by_graph": {graph: None if recipe is None else recipe.to_dict() for graph, recipe in carried_out.items()},
        },
        calibration=None if calibration is None else calibration.to_dict(),
        logit_scale=None,
        components=components,
        requires_any_of=required_instruction_sets(folder / part.file for part in components.values()),
        files={path.name: file_facts(path) for path in sorted(folder.iterdir())},
        tools={tool: version(tool) for tool in TOOLS},
        kind=model.kind,
        generation=generation,
    ).write(folder)


def simulation(model: BlipModel, towers: Mapping[str, nn.Module]) -> BlipRunner:
    """Return `model` in torch with the graphs of `towers` (by component) in the places of its own."""
    graphs = {graph: tower.get_submodule(graph) for name, tower in towers.items() for graph in COMPONENTS[name]}
    return replace(model, name=f"{model.name} simulated", graphs={**model.graphs, **graphs}).runner()


def recipes_in_words(model: BlipModel, recipes: Mapping[str, Recipe]) -> str:
    """Return one name where all components have the same recipe, "vision=static-int8 decoder=..." otherwise."""
    names = {name: recipes[name].name if name in recipes else "float32" for name in components_of(model)}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return " ".join(f"{component}={name}" for component, name in names.items())


def _probe_ids(model: BlipModel) -> list[int]:
    if model.kind == "captioning":
        return [model.start_id]
    return model.tokenizer.encode(BUILTIN_QUESTIONS[0] if model.kind == "vqa" else BUILTIN_PROMPTS[0])


def _on_engine(folder: Path, name: str, model: BlipModel, generation: Mapping[str, int]) -> BlipRunner:
    return load_runner(
        folder,
        dict.fromkeys(model.graphs, Placement(engine=name, arithmetic="integer", reason="it is to be proved")),
        name=name,
        kind=model.kind,
        generation=generation,
        threads=None,
        options=GenerationOptions(),
        batch_size=BATCH,
    )


def _fidelity(done: _Done) -> dict[str, float]:
    inputs = list(done.part.inputs)[:: max(1, len(done.part.inputs) // JUDGED)][:JUDGED]
    with torch.inference_mode():
        pairs = [(done.result(batch).numpy(), done.part.tower(batch).numpy()) for batch in inputs]
    return agreement(np.concatenate([new for new, _ in pairs]), np.concatenate([old for _, old in pairs]))


def _parity(graph: str, found: BlipResults, expected: BlipResults) -> dict[str, float]:
    against = agreement(found.rows[graph], expected.rows[graph])
    return {**against, "equal_tokens": found.equal_tokens(expected)} if graph == "decoder" else against
