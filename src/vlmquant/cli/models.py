"""From what a user typed after `-m` to an encoder."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vlmquant.bundle.manifest import MANIFEST, SCHEMA_VERSION
from vlmquant.bundle.placement import place
from vlmquant.bundle.runtime import checked_encoder, open_placed
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.errors import EngineError
from vlmquant.files import cache_folder
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.progress import Track
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.tasks.protocol import digest

FIRST_USE_RECIPE = "static-int8"
FIRST_USE_FRAMES = 64


@dataclass(frozen=True)
class Opened:
    """An encoder, and what the user has to know about where it came from, one sentence each."""

    encoder: DualEncoder
    notes: tuple[str, ...]


def first_use_folder(weights_sha256: str) -> Path:
    """Return where a checkpoint that is quantized on first use is kept, one folder for each form of the recipe."""
    recipe = digest(get_recipe(FIRST_USE_RECIPE).to_dict())
    return cache_folder("bundles") / f"{weights_sha256[:16]}-{FIRST_USE_RECIPE}-{recipe[:8]}-schema{SCHEMA_VERSION}"


def open_model(
    name: str | None,
    videos: Sequence[Path],
    *,
    engine: str = "auto",
    threads: int | None = None,
    as_float: bool = False,
    probe: bool = True,
    track: Track,
) -> Opened:
    """Open a bundle, a checkpoint folder or a hub id; None is the bundled street model.

    A checkpoint is quantized on first use, calibrated on frames sampled from `videos`, and kept under the hash of its
    weights; `as_float` runs it unquantized in torch.
    """
    if name is not None and (Path(name) / MANIFEST).is_file():
        if as_float:
            raise EngineError(f"{name!r} is a quantized bundle; --float needs the checkpoint it was made from")
        return _open_bundle(Path(name), engine, threads, probe, ())
    notes: tuple[str, ...] = ()
    if name is None:
        from vlmquant.streetworld import checkpoint

        name = str(checkpoint())
        notes = ("no model given (-m): using the bundled demonstration model, which only knows drawn street scenes",)
    from vlmquant.checkpoints import load_model

    model = load_model(name)
    if as_float:
        return Opened(model.encoder(), (*notes, f"running {model.name} unquantized (float32, torch)"))
    folder = first_use_folder(model.weights_sha256)
    if not (folder / MANIFEST).is_file():
        from vlmquant.build.build import quantize_model

        calibration = calibration_from_videos(videos, track=track)
        quantize_model(model, get_recipe(FIRST_USE_RECIPE), calibration, folder, track=track)
        notes = (*notes, f"quantized {model.name} on first use; kept in {folder}")
    return _open_bundle(folder, engine, threads, probe, notes)


def _open_bundle(folder: Path, engine: str, threads: int | None, probe: bool, notes: tuple[str, ...]) -> Opened:
    manifest = checked_encoder(folder)
    placements = place(folder, manifest, engine=engine, threads=threads, probe=probe)
    encoder = open_placed(folder, manifest, placements, threads)
    reasons = dict.fromkeys(f"{placed.way} ({placed.reason})" for placed in placements.values())
    notes = (*notes, *encoder.notes, f"engine: {'; '.join(reasons)}")
    if manifest.calibration is not None:
        notes = (*notes, f"model: {manifest.name}, calibrated on {manifest.calibration['images_from']}")
    return Opened(encoder, notes)


def calibration_from_videos(videos: Sequence[Path], *, track: Track) -> CalibrationSet:
    """Take `FIRST_USE_FRAMES` frames spread evenly over `videos`, and the built-in prompts."""
    from vlmquant.video.source import open_video

    share = -(-FIRST_USE_FRAMES // len(videos))
    frames = []
    for path in track(videos, "Sampling calibration frames", len(videos)):
        with open_video(path) as source:
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
