"""What a report says about a model beside its scores: its size on disk and its bits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmquant.bundle.manifest import MANIFEST, ComponentFacts, Manifest

FLOAT_BITS = 32
NEEDED = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Files of a checkpoint, beside its weights, without which it does not run."""

Bits = tuple[int, int]
"""Bits of a component's weights and of its activations; 32 for float."""

_BITS_IN_NAME = re.compile(r"-?w\d+(a\d+)?$")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One model: `bytes_on_disk` is everything needed to run it, `bits` maps its components to their bits.

    `recipe` is the name of the bundle's recipe and `calibrated_on` says what its ranges were measured on; both are
    empty where there is no such thing.
    """

    name: str
    bytes_on_disk: int
    bits: Mapping[str, Bits]
    recipe: str = ""
    calibrated_on: str = ""

    @property
    def precision(self) -> str:
        """Return such as "W8A8", "image W8A8, text float" or "float"."""
        named = {component: bits_name(bits) for component, bits in sorted(self.bits.items())}
        if len(set(named.values())) == 1:
            return next(iter(named.values()))
        return ", ".join(f"{component} {name}" for component, name in named.items())

    @property
    def method(self) -> str:
        """The recipe's name without its bits: "twin-hessian-w4a4" -> "twin-hessian"."""
        return _BITS_IN_NAME.sub("", self.recipe) or self.recipe

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelFacts":
        """Read what `dataclasses.asdict` gives. Raises KeyError and TypeError for anything else."""
        bits = {
            component: (int(weights), int(activations)) for component, (weights, activations) in values["bits"].items()
        }
        return cls(**{**values, "bits": bits})


def facts_of_bundle(folder: Path, manifest: Manifest) -> ModelFacts:
    """Describe the bundle in `folder`."""
    calibration = manifest.calibration
    return ModelFacts(
        name=manifest.name,
        bytes_on_disk=manifest.total_bytes + (folder / MANIFEST).stat().st_size,
        bits={component: _bits(facts) for component, facts in manifest.components.items()},
        recipe=manifest.precision,
        calibrated_on="" if calibration is None else str(calibration["images_from"]),
    )


def facts_of_checkpoint(name: str, folder: Path, components: Iterable[str]) -> ModelFacts:
    """Describe the checkpoint in `folder`, which is float everywhere."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files = [path for path in (*weights, *(folder / name for name in NEEDED)) if path.is_file()]
    return ModelFacts(
        name=name,
        bytes_on_disk=sum(path.stat().st_size for path in files),
        bits=dict.fromkeys(components, (FLOAT_BITS, FLOAT_BITS)),
    )


def bits_name(bits: Bits) -> str:
    """Return "W8A8", "W4" where the activations stay float, or "float"."""
    weights, activations = bits
    if weights == FLOAT_BITS and activations == FLOAT_BITS:
        return "float"
    return f"W{weights}" if activations == FLOAT_BITS else f"W{weights}A{activations}"


def _bits(component: ComponentFacts) -> Bits:
    if component.recipe is None:
        return FLOAT_BITS, FLOAT_BITS
    return component.recipe.weight_bits, component.recipe.activation_bits or FLOAT_BITS
