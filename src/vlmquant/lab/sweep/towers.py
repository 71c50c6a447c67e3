"""The towers of a sweep: their embeddings, each made once, and the files that the deployable ones run from.

A tower is quantized when the first of its embeddings that are not in the cache is asked for, and not at all where
none is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from torch import nn

from vlmquant.bench.measure import bytes_on_disk
from vlmquant.build.build import quantize_model
from vlmquant.build.export import export_tower
from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.bundle.placement import place
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.data.sets import ImageSet
from vlmquant.engines import choose, load
from vlmquant.files import digest
from vlmquant.lab.sweep.plan import FLOAT, FLOAT_BITS, Bits, Pair, Precision
from vlmquant.models.spec import FloatArray
from vlmquant.opening import Opened, opened_checkpoint
from vlmquant.opening.named import deciding, package_version
from vlmquant.progress import Track
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.tasks.embeddings import image_features, text_rows
from vlmquant.tasks.store import Store

COMPONENTS = ("image", "text")
TORCH, SIMULATION = "torch", "simulation"

Batch = TypeVar("Batch")


@dataclass(eq=False, kw_only=True)
class Towers:
    """Every precision of both towers of `model`; what is made lies in `folder`.

    `calibration` may be None when no recipe measures anything. `threads` are those of the engines.
    """

    model: ClipModel
    precisions: dict[str, Precision]
    calibration: CalibrationSet | None
    data: ImageSet
    templates: tuple[str, ...]
    folder: Path
    threads: int | None
    track: Track

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "embeddings")
        self._float = opened_checkpoint(self.model)
        self._features: dict[str, FloatArray] = {}
        self._texts: dict[str, FloatArray] = {}

    def bits(self, name: str) -> Bits:
        """Return the bits of a precision."""
        return (FLOAT_BITS, FLOAT_BITS) if name == FLOAT else self.precisions[name].bits

    def why_simulated(self, pair: Pair) -> str:
        """Return why a tower of the pair is simulated; empty when both run from files."""
        reasons = [self.precisions[name].why_simulated for name in (pair.image, pair.text) if name != FLOAT]
        return next((reason for reason in reasons if reason is not None), "")

    def runs_on(self, name: str) -> str:
        """Return the engine of a precision, "simulation", or "torch" for float."""
        if name == FLOAT:
            return TORCH
        return (
            SIMULATION if self.precisions[name].why_simulated is not None else engine_of(self.precisions[name].recipe)
        )

    def opened(self, name: str) -> Opened:
        """Return a precision as an encoder whose towers are made when they are first called."""
        if name == FLOAT:
            return self._float
        precision, engine = self.precisions[name], self.runs_on(name)
        about = {key: value for key, value in precision.recipe.to_dict().items() if key != "description"}
        calibration = self.calibration if precision.recipe.needs_calibration else None
        facts = {
            **self._float.facts,
            "kind": SIMULATION if engine == SIMULATION else "bundle",
            "precision": f"{name} {digest(about)[:12]}",
            "engine": engine,
            "engine_version": package_version(TORCH if engine == SIMULATION else engine),
            "torch": package_version(TORCH),
            "calibration": "none" if calibration is None else calibration.digest,
        }
        make = self._simulated if engine == SIMULATION else self._deployed
        encoder = replace(
            self._float.encoder,
            name=f"{self.model.name} {name}",
            image_tower=_lazily(lambda: make(name, "image")),
            text_tower=_lazily(lambda: make(name, "text")),
        )
        return replace(self._float, runner=encoder, facts=facts, identity=digest(self._float.identity, deciding(facts)))

    def features(self, name: str) -> FloatArray:
        """Return the image features (n, d) float32 of a precision, not normalized."""
        if name not in self._features:
            self._features[name] = image_features(self.opened(name), self.data, self.store, self.track)
        return self._features[name]

    def texts(self, name: str) -> FloatArray:
        """Return the unit rows (m, d) float32 of the classes or captions by a precision."""
        if name not in self._texts:
            rows = text_rows(self.opened(name), self.data, self.templates, self.store, self.track)
            assert rows is not None
            self._texts[name] = rows
        return self._texts[name]

    def graph(self, name: str, component: str) -> Path:
        """Return the ONNX file of a tower that runs from one, float included; it is made where it is missing."""
        if name != FLOAT:
            folder = self.bundle(name)
            return folder / Manifest.read(folder).components[component].file
        path = self.folder / "bundles" / f"float-{self.model.identity[:12]}" / f"{component}.onnx"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            example = calibration_inputs(self.model, None, component)[0][:2]
            export_tower(self._tower(component), example, (0, 1) if component == "text" else (0,), path)
        return path

    def sized(self, pair: Pair) -> bool:
        """Return whether the pair has a size: it runs from files, and so does some recipe to compare it with."""
        deployed = any(precision.why_simulated is None for precision in self.precisions.values())
        return deployed and not self.why_simulated(pair)

    def bytes_on_disk(self, pair: Pair) -> int | None:
        """Return the bytes of everything that a pair needs to run from files, None where it is not `sized`."""
        if not self.sized(pair):
            return None
        graphs = sum(
            bytes_on_disk(self.graph(name, component))
            for name, component in zip((pair.image, pair.text), COMPONENTS, strict=True)
        )
        return graphs + self._bytes_beside_graphs()

    def bundle(self, name: str) -> Path:
        """Return the bundle of a precision; it is made, or made again if it was altered, where it is missing."""
        folder = self.folder / "bundles" / f"{name}-{self.opened(name).identity[:12]}"
        if (folder / MANIFEST).is_file():
            checked_bundle(folder)
            return folder
        return quantize_model(self.model, self.precisions[name].recipe, self.calibration, folder, track=self.track)

    def _bytes_beside_graphs(self) -> int:
        folder = self.folder / "bundles" / f"float-{self.model.identity[:12]}" / "preprocessing"
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_preprocessing(folder)
        return bytes_on_disk(folder)

    def _simulated(self, name: str, component: str) -> Callable[..., FloatArray]:
        inputs = calibration_inputs(self.model, self.calibration, component)
        recipe = self.precisions[name].recipe
        tower = quantize_tower(self._tower(component), recipe, inputs, f"{name}, {component} tower", self.track)
        if component == "image":
            return replace(self.model, image_tower=tower).encoder().image_tower
        return replace(self.model, text_tower=tower).encoder().text_tower

    def _deployed(self, name: str, component: str) -> Callable[..., FloatArray]:
        graph, engine = self.graph(name, component), self.runs_on(name)
        if name == FLOAT:
            return load(graph, engine, self.threads)
        # The bundle was proved when it was made; what is asked here is whether its integers can overflow on this CPU.
        placed = place(graph.parent, Manifest.read(graph.parent), engine=engine, probe=False)[component]
        return load(graph, placed.engine, self.threads, arithmetic=placed.arithmetic)

    def _tower(self, component: str) -> nn.Module:
        return self.model.image_tower if component == "image" else self.model.text_tower


def engine_of(recipe: Recipe) -> str:
    """Return the engine that a bundle of `recipe` takes on this machine. Raises EngineError where none can run it."""
    if recipe.activations is None:
        return choose("float")[0]
    return choose("static" if recipe.static else "dynamic")[0]


def _lazily(make: Callable[[], Callable[[Batch], FloatArray]]) -> Callable[[Batch], FloatArray]:
    made = cache(make)
    return lambda batch: made()(batch)
