"""The contenders of `dq-clip`: a float CLIP, and what torch's dynamic quantization and our recipes make of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.lab.reproduce.dq_clip.towers_worker import DYNAMIC, FLOAT, OURS, TOKENS, source_linears
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.lab.stress import stressed
from vlmquant.models.encoder import DualEncoder
from vlmquant.opening import RunsOn, open_named
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import sites

EVERY_LINEAR = "torch dynamic INT8, every Linear"
TORCH_RECIPE = "torch-dynamic"
BUNDLED_CONTENDERS = (TOKENS, OURS)
"""The contenders that are bundles; each is called what its recipe is."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One float CLIP: what stands over its figures, its folder, and whether outliers are put in (`lab.stress`)."""

    name: str
    folder: Path
    outliers: bool = False

    def model(self) -> ClipModel:
        """Load it."""
        model = load_model(self.folder)
        return stressed(model) if self.outliers else model


def source_recipe(tower: nn.Module) -> Recipe:
    """Return torch's dynamic quantization of the Linears that are in INT8 in the source's files."""
    recipe, kept = get_recipe(TORCH_RECIPE), set(source_linears(tower))
    return replace(recipe, keep_float=tuple(name for name in sites(tower, recipe) if name not in kept))


def bundle_once(
    kept: Kept,
    contender: str,
    model: Callable[[], ClipModel],
    recipe: Recipe,
    calibrate: Callable[[], CalibrationSet],
    components: tuple[str, ...] | None = None,
    track: Track = silent,
) -> Path:
    """Return the bundle of a contender, made where it is not there."""
    bundle = kept.place / contender.replace(" ", "-")

    def work() -> dict[str, str]:
        calibration = calibrate()
        if not (bundle / MANIFEST).is_file():
            quantize_model(model(), recipe, calibration, bundle, components=components, track=track)
        return {"calibrated_on": calibration.images_from}

    kept.once(f"bundle {contender}", work, made=bundle)
    return bundle


def encoders(
    model: Callable[[], ClipModel],
    bundles: Mapping[str, Path],
    calibrate: Callable[[], CalibrationSet],
    threads: int,
    track: Track,
) -> dict[str, Callable[[], DualEncoder]]:
    """Return what opens each contender for scoring; torch's quantization is simulated, its arithmetic is the same."""

    def simulated(recipe_of: Callable[[nn.Module], Recipe]) -> DualEncoder:
        loaded, calibration = model(), calibrate()
        towers = {
            component: quantize_tower(
                tower, recipe_of(tower), calibration_inputs(loaded, calibration, component), component, track
            )
            for component, tower in loaded.graphs.items()
        }
        return replace(loaded, image_tower=towers["image"], text_tower=towers["text"]).encoder()

    def opened(bundle: Path) -> DualEncoder:
        return open_named(bundle, runs_on=RunsOn(threads=threads)).encoder

    return {
        FLOAT: lambda: model().encoder(),
        DYNAMIC: partial(simulated, source_recipe),
        EVERY_LINEAR: partial(simulated, lambda _: get_recipe(TORCH_RECIPE)),
        **{name: partial(opened, bundles[name]) for name in BUNDLED_CONTENDERS},
    }
