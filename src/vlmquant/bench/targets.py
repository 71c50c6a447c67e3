"""What to bench: from what a user named, or with random weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmquant.bench.writing import GENERATION
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.errors import BundleError, EngineError, ModelError, unknown
from vlmquant.progress import Track, silent

TOWERS = ("image", "text")
COMPONENTS = (*TOWERS, GENERATION)
"""A tower of a CLIP, or a BLIP from picture to text."""


@dataclass(frozen=True, kw_only=True)
class BenchTargets:
    """What to bench: a bundle folder, the folder of the float checkpoint to compare it with, or both; one component.

    `allow_pickle` also reads a checkpoint whose weights are a pickle.

    Raises EngineError when both are None and BundleError for a component that does not exist.
    """

    bundle: Path | None = None
    checkpoint: Path | None = None
    component: str = "image"
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.bundle is None and self.checkpoint is None:
            raise EngineError("nothing to bench; give a bundle, a checkpoint or both")
        if self.component not in COMPONENTS:
            raise unknown(BundleError, "component", self.component, COMPONENTS)


def named_targets(
    target: str, against: str | None, component: str | None = None, *, allow_pickle: bool = False
) -> BenchTargets:
    """Return a bundle with its float original `against`, or a float checkpoint alone.

    `component` None takes the image tower of a CLIP, and `GENERATION` of a BLIP.

    Raises ModelError where a checkpoint is given something to compare it with, cannot be found, or does something else
    than the bundle.
    """
    from vlmquant.checkpoints import heads_of
    from vlmquant.checkpoints.hub import resolve

    if (Path(target) / MANIFEST).is_file():
        head = Manifest.read(Path(target)).head.name
        checkpoint = None if against is None else resolve(against, allow_pickle=allow_pickle)
        others = () if against is None else heads_of(against, allow_pickle=allow_pickle)
        if others and head not in others:
            raise ModelError(f"{target} is a {head} and {against} a {' or '.join(others)}; name its own float original")
        usual = "image" if head == "dual-encoder" else GENERATION
        return BenchTargets(
            bundle=Path(target), checkpoint=checkpoint, component=component or usual, allow_pickle=allow_pickle
        )
    if against is not None:
        raise ModelError(f"{target!r} is not a bundle; --against takes the float original of a bundle")
    usual = "image" if "dual-encoder" in heads_of(target, allow_pickle=allow_pickle) else GENERATION
    return BenchTargets(
        checkpoint=resolve(target, allow_pickle=allow_pickle), component=component or usual, allow_pickle=allow_pickle
    )


def random_targets(
    architecture: str, recipe: str, component: str | None, folder: Path, *, track: Track = silent
) -> BenchTargets:
    """Make in `folder` a checkpoint with random weights and its bundle; `component` as for `named_targets`.

    Dense speed and size do not depend on the values. Raises ModelError for an unknown architecture.
    """
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_checkpoint
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.checkpoints.random_weights import random_checkpoint
    from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
    from vlmquant.quantize.recipes.presets import get_recipe

    chosen = get_recipe(recipe)
    checkpoint = folder / architecture
    random_checkpoint(architecture, checkpoint)
    model = load_checkpoint(checkpoint)
    generator = np.random.default_rng(0)
    shape = (model.image_spec.crop_height, model.image_spec.crop_width, 3)
    noise = tuple(generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(8))
    calibration = CalibrationSet(noise, BUILTIN_PROMPTS[:16], "8 images of noise", BUILTIN_PROMPTS_NAME)
    bundle = quantize_model(model, chosen, calibration, folder / "bundle", track=track)
    return named_targets(str(bundle), str(checkpoint), component)
