"""What the contenders are given: the same arrays for all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmquant.bench.writing import GENERATION
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.engines.session import AnyArray
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.models.spec import ImageSpec
from vlmquant.models.tokenizer import Tokenizer


def example_batch(folder: Path, component: str, batch: int, seed: int, *, allow_pickle: bool = False) -> AnyArray:
    """Return one batch for a tower of the bundle or checkpoint in `folder`.

    Images are (batch, 3, height, width) float32 noise of the model's input size, for `GENERATION` (batch, height,
    width, 3) uint8, as decoded pictures are: dense arithmetic takes as long on any pixels. Texts are the first of the
    built-in prompts, from the start again after the last; (batch, length) int64.
    """
    if component == "text":
        texts = [BUILTIN_PROMPTS[index % len(BUILTIN_PROMPTS)] for index in range(batch)]
        return _tokenizer(folder, allow_pickle).encode_batch(texts)
    spec = _image_spec(folder, allow_pickle)
    generator = np.random.default_rng(seed)
    if component == GENERATION:
        return generator.integers(0, 256, (batch, spec.crop_height, spec.crop_width, 3), dtype=np.uint8)
    return generator.standard_normal((batch, 3, spec.crop_height, spec.crop_width), dtype=np.float32)


def write_inputs(
    folder: Path, component: str, batches: Sequence[int], seed: int, output: Path, *, allow_pickle: bool = False
) -> dict[int, Path]:
    """Write one .npy per batch size into `output` and return their paths."""
    paths = {batch: output / f"inputs_{batch}.npy" for batch in batches}
    for batch, path in paths.items():
        np.save(path, example_batch(folder, component, batch, seed, allow_pickle=allow_pickle), allow_pickle=False)
    return paths


def _tokenizer(folder: Path, allow_pickle: bool) -> Tokenizer:
    """Return the tokenizer of a bundle, or of a checkpoint: only its weights and configuration say if that fits."""
    if _is_checkpoint(folder):
        from vlmquant.checkpoints import load_model

        return load_model(folder, allow_pickle=allow_pickle).tokenizer
    return Tokenizer.from_folder(folder)


def _image_spec(folder: Path, allow_pickle: bool) -> ImageSpec:
    if _is_checkpoint(folder):
        from vlmquant.checkpoints import load_checkpoint

        return load_checkpoint(folder, allow_pickle=allow_pickle).image_spec
    return ImageSpec.from_folder(folder)


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / MANIFEST).is_file()
