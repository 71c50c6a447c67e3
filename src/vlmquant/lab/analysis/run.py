"""One checkpoint, one recipe to look into, and others to hold beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.errors import CalibrationError, RecipeError
from vlmquant.lab.analysis.sites import SiteFacts, site_facts
from vlmquant.metrics.distances import kolmogorov_smirnov, wasserstein_1
from vlmquant.metrics.fidelity import cosines
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import plan_by_damage, quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, check_patterns
from vlmquant.quantize.sensitivity import LayerSensitivity, plan_sensitivity
from vlmquant.quantize.sites import multiplications
from vlmquant.tasks.encode import encode_images, encode_texts
from vlmquant.tasks.fidelity import evenly

SCHEMA = 1
SHOWN = 20
COMPARED = ("vanilla-w8a8", "vanilla-w6a6", "vanilla-w4a4", "vanilla-w3a3", "vanilla-w2a2")


@dataclass(frozen=True, kw_only=True)
class TowerAnalysis:
    """One tower: `recipe` as it was carried out, its sites, and its layers with the most sensitive first."""

    recipe: Recipe
    sites: tuple[SiteFacts, ...]
    sensitivity: tuple[LayerSensitivity, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Similarities:
    """Cosines (images, texts) float32 of every picture with every text, by one precision.

    `wasserstein` and `kolmogorov_smirnov` are the distances of the distribution of all cosines to that of float;
    `image_cosine` and `text_cosine` the mean cosines of the embeddings to those of float.
    """

    name: str
    cosines: FloatArray
    wasserstein: float
    kolmogorov_smirnov: float
    image_cosine: float
    text_cosine: float


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What `analyze` found. `similarities` has float first, then the recipe, then the others."""

    model: str
    weights_sha256: str
    random_weights: bool
    recipe: str
    calibration: Mapping[str, Any]
    towers: Mapping[str, TowerAnalysis]
    texts: tuple[str, ...]
    similarities: tuple[Similarities, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; of the cosines only a sample of 20 pictures and texts."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "random_weights": self.random_weights,
            "recipe": self.recipe,
            "calibration": dict(self.calibration),
            "towers": {
                component: {
                    "recipe": tower.recipe.to_dict(),
                    "sensitivity": [asdict(layer) for layer in tower.sensitivity],
                    "sites": [_site_dict(site) for site in tower.sites],
                }
                for component, tower in self.towers.items()
            },
            "similarities": [self._similarities_dict(one) for one in self.similarities],
        }

    def _similarities_dict(self, one: Similarities) -> dict[str, Any]:
        images, texts = (evenly(count, SHOWN) for count in one.cosines.shape)
        values = {key: value for key, value in vars(one).items() if key != "cosines"}
        sample = one.cosines[np.ix_(images, texts)]
        return {
            **values,
            "pairs": one.cosines.size,
            "mean": float(one.cosines.mean()),
            "standard_deviation": float(one.cosines.std()),
            "sample": {
                "pictures": images.tolist(),
                "texts": [self.texts[i] for i in texts],
                "cosines": sample.tolist(),
            },
        }


def analyze(
    model: ClipModel,
    calibration: CalibrationSet,
    recipe: Recipe,
    compared: Sequence[str] = COMPARED,
    track: Track = silent,
) -> Analysis:
    """Look into what `recipe` does to both towers of `model`, and into the similarities that `compared` leave.

    Everything is measured on `calibration`, on whose pictures and texts the ranges were found too. Raises RecipeError
    for a recipe without integers and unknown names, CalibrationError without pictures or texts.
    """
    if not recipe.integer_weights:
        raise RecipeError(f"recipe {recipe.name!r} stores no integers; analyze one that does, such as static-int8")
    if not calibration.images or not calibration.texts:
        raise CalibrationError("an analysis needs pictures and texts; pass a folder of images (--calibrate)")
    others = [get_recipe(name) for name in dict.fromkeys(compared) if name != recipe.name]
    for one in (recipe, *others):
        check_patterns(one, [*multiplications(model.image_tower), *multiplications(model.text_tower)])
    inputs = {component: calibration_inputs(model, calibration, component) for component in COMPONENTS}
    analysed: dict[str, TowerAnalysis] = {}
    quantized: dict[str, nn.Module] = {}
    for component, tower in (("image", model.image_tower), ("text", model.text_tower)):
        what = f"{recipe.name}, {component} tower"
        plan, carried_out = plan_by_damage(tower, recipe, inputs[component], what, track)
        analysed[component] = TowerAnalysis(
            recipe=carried_out,
            sites=site_facts(plan, inputs[component], what, track),
            sensitivity=plan_sensitivity(plan, carried_out, inputs[component], what, track),
        )
        quantized[component] = plan.carried_out()
    expected = _embed(model.encoder(), calibration, track)
    similarities = [_similarities("float", expected, expected)]
    similarities.append(_similarities(recipe.name, _embed(_encoder(model, quantized), calibration, track), expected))
    for other in others:
        towers = {
            component: quantize_tower(tower, other, inputs[component], f"{other.name}, {component} tower", track)
            for component, tower in (("image", model.image_tower), ("text", model.text_tower))
        }
        similarities.append(_similarities(other.name, _embed(_encoder(model, towers), calibration, track), expected))
    return Analysis(
        model=model.name,
        weights_sha256=model.weights_sha256,
        random_weights=model.random_weights,
        recipe=recipe.name,
        calibration=calibration.to_dict(),
        towers=analysed,
        texts=calibration.texts,
        similarities=tuple(similarities),
    )


def _encoder(model: ClipModel, towers: Mapping[str, nn.Module]) -> DualEncoder:
    return replace(model, image_tower=towers["image"], text_tower=towers["text"]).encoder()


def _embed(encoder: DualEncoder, calibration: CalibrationSet, track: Track) -> tuple[FloatArray, FloatArray]:
    names = [f"picture {number}" for number in range(len(calibration.images))]
    images = encode_images(encoder, calibration.images, names, track).rows
    return images, encode_texts(encoder, calibration.texts, calibration.texts, track)


def _similarities(
    name: str, found: tuple[FloatArray, FloatArray], expected: tuple[FloatArray, FloatArray]
) -> Similarities:
    images, texts = found
    matrix = images @ texts.T
    values, float_values = (rows.astype(np.float64).ravel() for rows in (matrix, expected[0] @ expected[1].T))
    return Similarities(
        name=name,
        cosines=matrix,
        wasserstein=wasserstein_1(float_values, values),
        kolmogorov_smirnov=kolmogorov_smirnov(float_values, values),
        image_cosine=float(cosines(images, expected[0]).mean()),
        text_cosine=float(cosines(texts, expected[1]).mean()),
    )


def _site_dict(site: SiteFacts) -> dict[str, Any]:
    def listed(name: str) -> dict[str, Any] | None:
        found = getattr(site, name)
        return None if found is None else {**vars(found), "counts": found.counts.tolist()}

    return {**vars(site), "input": listed("input"), "weight": listed("weight"), "exact": list(site.exact)}
