"""What the graphs of a BLIP are calibrated, exported and proved on: images, and texts written by the float model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vlmquant.checkpoints.blip.graphs import COMPONENTS
from vlmquant.checkpoints.blip.towers import Batch, DecodingTower, GraphTower
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.part import BATCH, GraphExample, Part, Preparation, probe_images
from vlmquant.errors import DataError
from vlmquant.models.generate import GenerationOptions, generate
from vlmquant.models.preprocess import preprocess
from vlmquant.models.prompts import (
    BUILTIN_PROMPTS,
    BUILTIN_PROMPTS_NAME,
    BUILTIN_QUESTIONS,
    BUILTIN_QUESTIONS_NAME,
)
from vlmquant.progress import Track, silent

if TYPE_CHECKING:
    from vlmquant.checkpoints.blip.model import BlipModel

WRITTEN = 20
"""The most tokens that the float model writes about an image, to be read by its decoder."""
JUDGED = 8
"""So many inputs of a component tell how near the simulation comes to the float model."""
ROWS, LENGTH, PAST = 2, 3, 5
"""Sizes of the axes that may vary in an example: torch.export takes each for fixed where it is 1."""


def prepared_blip(model: "BlipModel", calibration: CalibrationSet | None, track: Track = silent) -> Preparation:
    """Return every component with its inputs, in the order in which they run.

    Without a set, or without images in it, the probe images serve.
    """
    stand_in = CalibrationSet(tuple(probe_images((), model.image_spec)), BUILTIN_PROMPTS, "noise", "")
    inputs = suited(model, calibration if calibration and calibration.images else stand_in)
    return Preparation(
        calibration=calibration and inputs,
        parts=tuple(_parts(model, inputs, track)),
        examples=graph_examples(model),
        probe_ids=np.array([_probe_text(model)], dtype=np.int64),
    )


def _probe_text(model: "BlipModel") -> list[int]:
    if model.kind == "captioning":
        return [model.start_id]
    return model.tokenizer.encode(BUILTIN_QUESTIONS[0] if model.kind == "vqa" else BUILTIN_PROMPTS[0])


def component_tower(model: "BlipModel", component: str) -> nn.Module:
    """Return the float graphs of one component as one tower; their names come before those of their modules."""
    graphs = {graph: model.graphs[graph] for graph in COMPONENTS[component]}
    return DecodingTower(graphs) if component == "decoder" else GraphTower(graphs)


def suited(model: "BlipModel", calibration: CalibrationSet) -> CalibrationSet:
    """Return `calibration` with the texts that `model` reads: those given, or the built-in ones for its kind.

    A captioner reads none but its own unless some are given. A model of few positions does without the longer of the
    built-in ones.
    """
    if calibration.texts != BUILTIN_PROMPTS:
        return calibration
    texts, texts_from = {
        "captioning": ((), "the float model itself"),
        "vqa": (BUILTIN_QUESTIONS, BUILTIN_QUESTIONS_NAME),
        "matching": (BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME),
    }[model.kind]
    return replace(calibration, texts=tuple(text for text in texts if _fits(model, text)), texts_from=texts_from)


def _fits(model: "BlipModel", text: str) -> bool:
    try:
        model.tokenizer.encode(text)
    except DataError:
        return False
    return True


def _parts(model: "BlipModel", calibration: CalibrationSet, track: Track) -> list[Part]:
    """Return every component with its inputs, in the order in which they run.

    Texts meet images in turn, as many pairs as there are of the larger. The decoder reads what the float model writes
    about each (up to `WRITTEN` tokens), and given captions. Each text is a batch of its own, as lengths differ.
    """
    pixels = [torch.from_numpy(preprocess(image, model.image_spec)) for image in calibration.images]
    batches = [torch.stack(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    seen: list[Tensor] = []
    # Not `inference_mode`: methods that learn run gradients through what reads these inputs.
    with torch.no_grad():
        for stacked in track(batches, "Looking at calibration images", len(batches)):
            seen += model.graphs["vision"](stacked).split(1)
    inputs = {"vision": [Batch((stacked,)) for stacked in batches]}
    encoded = [torch.tensor([model.tokenizer.encode(text)]) for text in calibration.texts]
    turns = range(max(len(seen), len(encoded)) if encoded else 0)
    pairs = [(encoded[turn % len(encoded)], seen[turn % len(seen)]) for turn in turns]
    if model.kind == "matching":
        inputs["matcher"] = [Batch(pair) for pair in pairs]
    elif model.kind == "vqa":
        inputs["question_encoder"] = [Batch(pair) for pair in pairs]
        with torch.no_grad():
            questions = [model.graphs["question_encoder"](*pair) for pair in pairs]
        inputs["decoder"] = _own_texts(model, questions, track)
    else:
        start = torch.tensor([[model.start_id]])
        given = [Batch((torch.cat([start, ids[:, 1:-1]], dim=1), states)) for ids, states in pairs]
        inputs["decoder"] = _own_texts(model, seen, track) + given
    return [_part(model, name, inputs[name]) for name in model.components]


def _part(model: "BlipModel", component: str, inputs: Sequence[Batch]) -> Part:
    judged = inputs[:: max(1, len(inputs) // JUDGED)][:JUDGED]
    graphs = {graph: graph for graph in COMPONENTS[component]}
    return Part(component, component_tower(model, component), graphs, inputs, judged)


def _own_texts(model: "BlipModel", states: Sequence[Tensor], track: Track) -> list[Batch]:
    """Return for each of `states` (1, p, width) what the decoder reads while the float model writes about it."""
    runner = model.runner(GenerationOptions(max_new_tokens=WRITTEN))
    start = np.array([[model.start_id]], dtype=np.int64)
    found: list[Batch] = []
    for one in track(list(states), "Writing calibration texts", len(states)):
        memory = runner.graphs["cross"](one.numpy())
        (written,) = generate(runner.graphs["decoder"], memory, start, model.end_id, model.pad_id, runner.options)
        # The last token is written and never read.
        found.append(Batch((torch.tensor([[model.start_id, *written[:-1]]]), one)))
    return found


def graph_examples(model: "BlipModel") -> dict[str, GraphExample]:
    """Return for each graph of `model` an example of its inputs, drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(ROWS, 3, model.image_spec.crop_height, model.image_spec.crop_width, generator=generator)
    with torch.inference_mode():
        states = model.graphs["vision"](pixels)
    examples = {"vision": GraphExample({"pixels": pixels}, {"pixels": (0,)}, ("states",))}
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    reading = {"ids": ids, "states": states}
    # The patches of an image are always as many; questions differ in length, and the decoder of a vqa model reads them.
    fixed = {"ids": (0, 1), "states": (0,)}
    if model.kind == "matching":
        return examples | {"matcher": GraphExample(reading, fixed, ("logits",))}
    if model.kind == "vqa":
        examples["question_encoder"] = GraphExample(reading, fixed, ("question_states",))
        states = states[:, :LENGTH].contiguous()
    positions = (1,) if model.kind == "vqa" else ()
    names = tuple(f"{part}_{layer}" for layer in range(model.layers) for part in ("key", "value"))
    examples["cross"] = GraphExample({"states": states}, {"states": (0, *positions)}, names)
    with torch.inference_mode():
        memory = dict(zip(names, model.graphs["cross"](states), strict=True))
    past = torch.randn(model.layers, 2, ROWS, model.heads, PAST, model.head_dim, generator=generator)
    varying = {"ids": (0, 1), "past": (2, 4), **dict.fromkeys(names, (0, *(axis + 1 for axis in positions)))}
    examples["decoder"] = GraphExample({"ids": ids, "past": past, **memory}, varying, ("logits", "present"))
    return examples
