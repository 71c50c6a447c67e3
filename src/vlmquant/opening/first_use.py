"""Checkpoints that are quantized the first time they are used, and the bundles that are kept of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vlmquant.bundle.manifest import MANIFEST, SCHEMA_VERSION
from vlmquant.files import alone, cache_folder, digest
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.models.spec import Head
from vlmquant.progress import Track
from vlmquant.quantize.recipes.presets import get_recipe

if TYPE_CHECKING:
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.checkpoints.families import FloatModel

RECIPE = "static-int8"
BUNDLED: Mapping[Head | None, str] = {
    "dual-encoder": "street-clip",
    "captioner": "street-blip-captions",
    "answerer": "street-blip-vqa",
}
"""The demonstration model for each head that has one."""
BUNDLED_SCENES = 16
VIDEO_FRAMES = 64


def bundle_of(model: "FloatModel", calibrate: "Callable[[], CalibrationSet]", track: Track) -> tuple[Path, bool]:
    """Return the bundle kept of `model`, and whether it was made just now, with what `calibrate` returns."""
    folder = kept_folder(model.identity)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two runs may want the same bundle for the first time: the second waits for what the first makes.
    with alone(folder.with_name(f"{folder.name}.first"), wait=True):
        if (folder / MANIFEST).is_file():
            return folder, False
        from vlmquant.build.build import quantize_model

        quantize_model(model, get_recipe(RECIPE), calibrate(), folder, track=track)
    return folder, True


def kept_folder(identity: str) -> Path:
    """Return where the bundle of the checkpoint of this identity is kept, one folder for each form of the recipe."""
    recipe = digest(get_recipe(RECIPE).to_dict())
    return cache_folder("bundles") / f"{identity[:16]}-{RECIPE}-{recipe[:8]}-schema{SCHEMA_VERSION}"


def bundled_calibration() -> "CalibrationSet":
    """Return drawn scenes, which is all that the bundled models know."""
    from streetworld import calibration_set

    return calibration_set(BUNDLED_SCENES)


def calibration_from_videos(videos: Sequence[Path], track: Track) -> "CalibrationSet":
    """Take 64 frames spread evenly over `videos`, and the built-in prompts."""
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.video.sources import open_source

    share = -(-VIDEO_FRAMES // len(videos))
    frames = []
    for path in track(videos, "Sampling calibration frames", len(videos)):
        with open_source(path) as source:
            seconds = source.info.duration_seconds
            with closing(source.frames(fps=1.0 if not seconds else share / seconds)) as sampled:  # type: ignore[type-var]
                for frame, _ in zip(sampled, range(share), strict=False):
                    frames.append(frame.pixels)
    return CalibrationSet(
        images=tuple(frames),
        texts=BUILTIN_PROMPTS,
        images_from=f"{len(frames)} frames sampled from {', '.join(path.name for path in videos)}",
        texts_from=BUILTIN_PROMPTS_NAME,
    )
