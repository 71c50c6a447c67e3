"""Examples of what the graphs of a BLIP are called with: the names of inputs and outputs, and which axes may vary."""

from typing import TYPE_CHECKING

import torch

from vlmquant.checkpoints.part import GraphExample

if TYPE_CHECKING:
    from vlmquant.checkpoints.blip import BlipModel

ROWS, LENGTH, PAST = 2, 3, 5
"""Sizes of the axes that may vary in an example: torch.export takes each for fixed where it is 1."""


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
