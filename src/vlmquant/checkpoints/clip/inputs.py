"""What the towers of a dual encoder are calibrated, exported and proved on: images and texts."""

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.part import BATCH, COUNT, GraphExample, Part, Preparation, probe_images
from vlmquant.models.preprocess import preprocess
from vlmquant.models.prompts import BUILTIN_PROMPTS

if TYPE_CHECKING:
    from vlmquant.checkpoints.clip.model import ClipModel

VARYING = {"image": (0,), "text": (0, 1)}
"""The axes of a tower's input that may vary."""


def prepared_clip(model: "ClipModel", calibration: CalibrationSet | None) -> Preparation:
    """Return both towers with their inputs; see `calibration_inputs`."""
    parts = []
    for component, tower in model.graphs.items():
        inputs = calibration_inputs(model, calibration, component)
        parts.append(Part(component, tower, {component: ""}, inputs, inputs))
    texts = BUILTIN_PROMPTS if calibration is None else calibration.texts
    examples = {
        part.component: GraphExample(
            {"input": part.inputs[0][:2]}, {"input": VARYING[part.component]}, outputs=("features",)
        )
        for part in parts
    }
    return Preparation(calibration, tuple(parts), examples, model.tokenizer.encode_batch(texts[:COUNT]))


def calibration_inputs(model: "ClipModel", calibration: CalibrationSet | None, component: str) -> list[Tensor]:
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
