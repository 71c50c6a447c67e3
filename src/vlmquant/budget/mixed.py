"""Mixed precision: which layers' weights are stored in 4 bits and which in 8, for a bundle of a given size.

Every layer's damage in 4 bits is measured alone (HAWQ, Dong et al. 2019, arXiv 1905.03696, ranks layers so, by the
Hessian instead of the embedding), and layers go down to 4 bits in the order of damage per byte saved.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from vlmquant.bench.measure import bytes_on_disk
from vlmquant.build.build import check_free, quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.errors import BudgetError
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, check_components
from vlmquant.quantize.recipes.schemes import SiteBits, WeightScheme
from vlmquant.quantize.sensitivity import LayerSensitivity, layer_sensitivity
from vlmquant.quantize.sites import sites, token_tables

GRAPH_BYTES = 1_000_000
"""What a component's graph, and its share of the probes, may take beside the weights; the bundle is checked after."""
LEARNED = WeightScheme(scales="mse", rounding="gptq")


def mixed_precision(
    model: ClipModel,
    calibration: CalibrationSet,
    max_bytes: int,
    *,
    components: tuple[str, ...] = COMPONENTS,
    track: Track = silent,
) -> Recipe:
    """Return static-int8 with just so many layers' weights in 4 bits that the bundle takes at most `max_bytes`.

    Damage is that of the weights alone (activations float, GPTQ rounding); 8-bit weights count as harmless. Raises
    BudgetError with the least size possible where all layers in 4 bits are still too large.
    """
    chosen = check_components(components)
    if max_bytes < 1:
        raise BudgetError(f"the largest size must be above 0 bytes, got {max_bytes}")
    weights_only = Recipe(name="w4", description="4-bit weights", weights=replace(LEARNED, bits=4), activations=None)
    layers: list[LayerSensitivity] = []
    for component in chosen:
        inputs = calibration_inputs(model, calibration, component)
        tower = model.graphs[component]
        found = layer_sensitivity(tower, weights_only, inputs, f"{component} tower in 4 bits", track)
        # A convolution's 4-bit weights would take a byte each all the same.
        layers += [layer for layer in found if isinstance(tower.get_submodule(layer.site), nn.Linear)]
    narrow = fewest_narrow(layers, bytes_in_8_bits(model, chosen), max_bytes)
    return replace(
        get_recipe("static-int8"),
        name="mixed-w4w8a8",
        description=f"8-bit activations, the weights of {len(narrow)} of {len(layers)} layers in 4 bits, the rest in 8",
        weights=LEARNED,
        overrides=tuple(SiteBits(pattern=site, weights=4) for site in narrow),
        outliers=None,
    )


def quantize_to_size(
    model: ClipModel,
    calibration: CalibrationSet,
    max_bytes: int,
    output: str | Path,
    *,
    components: tuple[str, ...] = COMPONENTS,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Write to `output` the bundle of `mixed_precision` and return its path.

    Raises BudgetError also where it came out larger than planned; it is sound and stays then.
    """
    check_free(Path(output), overwrite)
    recipe = mixed_precision(model, calibration, max_bytes, components=components, track=track)
    folder = quantize_model(model, recipe, calibration, output, components=components, overwrite=overwrite, track=track)
    total = Manifest.read(folder).total_bytes
    if total > max_bytes:
        raise BudgetError(f"{folder} is sound but takes {total / 1e6:.1f} MB, more than {max_bytes / 1e6:.1f}")
    return folder


def fewest_narrow(layers: Sequence[LayerSensitivity], bytes_in_8: int, max_bytes: int) -> tuple[str, ...]:
    """Return the sites to store in 4 bits, least damage per byte saved first, until `max_bytes` are enough.

    `layers` were measured in 4 bits; `bytes_in_8` is the size with all of them in 8. Raises BudgetError where even all
    of them are not enough.
    """
    size, narrow = bytes_in_8, []
    for layer in sorted(layers, key=lambda layer: layer.cosine_loss / _saved(layer)):
        if size <= max_bytes:
            break
        narrow.append(layer.site)
        size -= _saved(layer)
    if size > max_bytes:
        raise BudgetError(
            f"{max_bytes / 1e6:.1f} MB are not enough: with all {len(layers)} layers in 4 bits the bundle still takes "
            f"about {size / 1e6:.1f} MB; allow that much"
        )
    return tuple(narrow)


def bytes_in_8_bits(model: ClipModel, components: Sequence[str]) -> int:
    """Return about what the bundle takes with `components` in 8 bits, the other one in float32."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_preprocessing(Path(folder))
        total = bytes_on_disk(Path(folder))
    for component in COMPONENTS:
        tower = model.graphs[component]
        total += GRAPH_BYTES + sum(4 * parameter.numel() for parameter in tower.parameters())
        if component in components:
            names = (*sites(tower, get_recipe("w4a8")), *token_tables(tower))
            narrowed = [tower.get_submodule(name).get_parameter("weight") for name in names]
            # From four bytes to one, and a float32 scale a row.
            total -= sum(3 * weight.numel() - 4 * len(weight) for weight in narrowed)
    return total


def _saved(layer: LayerSensitivity) -> int:
    """Return the bytes between 8 bits and 4: half a byte of every weight."""
    return layer.float_bytes // 8
