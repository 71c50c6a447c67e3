"""Writing a bundle's files, and proving them on every engine in the same call."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmquant.build.export import export_graph
from vlmquant.build.overflow import required_instruction_sets
from vlmquant.bundle.fields import printable
from vlmquant.bundle.load import load_file
from vlmquant.bundle.manifest import ComponentFacts, GraphRecipe, Manifest, file_facts, in_few_words
from vlmquant.bundle.probes import PROBES, ProbeInputs, ProbeResults, Probes, agreement, run_probes
from vlmquant.checkpoints.families import FloatModel
from vlmquant.checkpoints.part import Part, Preparation, probe_images
from vlmquant.engines import engine, installed_engines
from vlmquant.models.heads import Run
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track
from vlmquant.quantize.attention import plain_attention
from vlmquant.quantize.recipes.recipe import Recipe

TOOLS = ("vlmquant", "torch", "transformers", "onnx", "onnxscript", "numpy", "pillow")
"""What decides a bundle beside the engines, whose versions go into the manifest as well."""


def write_proved(
    folder: Path,
    model: FloatModel,
    prepared: Preparation,
    quantized: Mapping[str, tuple[nn.Module, Recipe]],
    *,
    recovered: Mapping[str, Any] | None = None,
    track: Track,
) -> None:
    """Export every graph of `model` into the empty `folder`, run the probes on every engine, write the manifest.

    `quantized` holds, by component, the tower and the recipe that was carried out on it; the others are float32.
    """
    parts = {graph: part for part in prepared.parts for graph in part.graphs}
    towers = {part.component: part.tower for part in prepared.parts} | {
        name: done for name, (done, _) in quantized.items()
    }
    modules = {graph: towers[part.component].get_submodule(part.graphs[graph]) for graph, part in parts.items()}
    recipes = {graph: quantized[part.component][1] for graph, part in parts.items() if part.component in quantized}
    model.save_preprocessing(folder)
    for graph in track(list(modules), "Exporting", len(modules)):
        example = prepared.examples[graph]
        with plain_attention(modules[graph]):
            export_graph(modules[graph], example.inputs, example.varying, example.outputs, folder / f"{graph}.onnx")
    probes, found = _probed(folder, model, prepared, modules, track)
    probes.save(folder / PROBES)
    fidelity = {part.component: _fidelity(part, towers[part.component]) for part in prepared.parts}
    components = {
        graph: ComponentFacts(
            file=f"{graph}.onnx",
            recipe=GraphRecipe.from_settings(recipes[graph].to_dict()) if graph in recipes else None,
            fidelity=fidelity[part.component],
            parity={name: _parity(graph, results, probes.expected) for name, results in found.items()},
            integer_mac_share={
                name: engine(name).audit(folder / f"{graph}.onnx", *prepared.examples[graph].audited).int8_share
                for name in found
            },
        )
        for graph, part in parts.items()
    }
    named = {
        part.component: quantized[part.component][1].name if part.component in quantized else "float32"
        for part in prepared.parts
    }
    source = {"name": model.name, "weights_sha256": model.weights_sha256, "random_weights": model.random_weights}
    Manifest(
        name=_shown(f"{model.name} {in_few_words(named)}"),
        source=source if recovered is None else {**source, "recovered": dict(recovered)},
        calibration=None if prepared.calibration is None else prepared.calibration.to_dict(),
        head=model.bundle_head,
        components=components,
        requires_any_of=required_instruction_sets(folder / part.file for part in components.values()),
        files={path.name: file_facts(path) for path in sorted(folder.iterdir())},
        tools={**{tool: version(tool) for tool in TOOLS}, **{name: engine(name).version for name in found}},
    ).write(folder)


def _probed(
    folder: Path, model: FloatModel, prepared: Preparation, modules: Mapping[str, nn.Module], track: Track
) -> tuple[Probes, dict[str, ProbeResults]]:
    """Return the probes with what the simulation and the float model make of them, and what each engine does."""
    head, spec = model.bundle_head, model.image_spec
    images = probe_images(() if prepared.calibration is None else prepared.calibration.images, spec)
    ids = prepared.probe_ids if head.independent else np.tile(prepared.probe_ids[:1], (len(images), 1))
    inputs = ProbeInputs(images, ids)
    expected, float_expected = (
        run_probes(head, {graph: _as_function(module) for graph, module in which.items()}, inputs, spec)
        for which in (modules, model.graphs)
    )
    engines = installed_engines()
    found = {}
    for name in track(engines, "Proving on every engine", len(engines)):
        graphs = {graph: load_file(folder / f"{graph}.onnx", name, "integer", None) for graph in modules}
        found[name] = run_probes(head, graphs, inputs, spec)
    return Probes(inputs, expected, float_expected), found


def _as_function(module: nn.Module) -> Run:
    """Return a torch module as a function from arrays to an array, or a tuple of them."""

    def run(*arrays: Any) -> Any:
        with torch.inference_mode():
            results: Any = module(*map(torch.from_numpy, arrays))
        return results.numpy() if isinstance(results, Tensor) else tuple(result.numpy() for result in results)

    return run


def _fidelity(part: Part, tower: nn.Module) -> dict[str, float]:
    pairs = [(_rows(tower, batch), _rows(part.tower, batch)) for batch in part.judged]
    return agreement(np.concatenate([new for new, _ in pairs]), np.concatenate([old for _, old in pairs]))


def _rows(tower: nn.Module, batch: Any) -> FloatArray:
    with torch.inference_mode():
        rows: Any = tower(batch)
    return np.asarray(rows.numpy(), dtype=np.float32)


def _parity(graph: str, found: ProbeResults, expected: ProbeResults) -> dict[str, float]:
    against = agreement(found.rows[graph], expected.rows[graph])
    return {**against, "equal_tokens": found.equal_tokens(expected)} if graph == "decoder" else against


def _shown(name: str) -> str:
    """Return `name` with what a terminal would obey in it replaced."""
    return "".join(character if printable(character) else "\N{REPLACEMENT CHARACTER}" for character in name)
