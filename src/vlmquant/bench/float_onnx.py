"""Exports one float tower: `python -m vlmquant.bench.float_onnx CHECKPOINT COMPONENT INPUTS.npy OUTPUT.onnx`.

A program of its own, so that the bench itself never imports torch.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from vlmquant.build.export import export_tower
from vlmquant.checkpoints import load_model


def export_float(checkpoint: Path, component: str, inputs: Path, output: Path) -> None:
    """Write the tower called `component` as a float32 ONNX graph of any batch size (and, for text, any length)."""
    model = load_model(checkpoint, allow_pickle=True)  # `bench` settled which weights may be opened
    tower = model.image_tower if component == "image" else model.text_tower
    example = torch.from_numpy(np.load(inputs, allow_pickle=False))
    # torch.export would take a batch of one for a constant.
    example = torch.cat([example, example])[:2]
    export_tower(tower, example, (0, 1) if component == "text" else (0,), output)


if __name__ == "__main__":
    export_float(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
