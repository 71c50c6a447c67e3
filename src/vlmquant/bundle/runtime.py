"""Opening and proving a bundle; needs neither torch nor transformers."""

from dataclasses import dataclass
from pathlib import Path

from vlmquant.bundle.manifest import Manifest, check_files
from vlmquant.bundle.probes import PROBES, Probes, agreement
from vlmquant.engines import check_instruction_set, choose, installed_engines, load
from vlmquant.errors import BundleError, unknown
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import ImageSpec
from vlmquant.models.tokenizer import Tokenizer

# Another CPU may round a few sums differently; anything further off than this is another model.
LEAST_COSINE = 0.999


@dataclass(frozen=True)
class ProbeRow:
    """How one engine agreed with the stored embeddings of one component."""

    engine: str
    component: str
    cosine_min: float
    cosine_to_float_min: float
    max_abs_difference: float


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify`: the manifest and one row per engine and component."""

    folder: Path
    manifest: Manifest
    rows: tuple[ProbeRow, ...]


def open_bundle(folder: str | Path, *, engine: str = "auto", threads: int | None = None) -> DualEncoder:
    """Return a bundle as an encoder on `engine` ("auto", "openvino" or "onnxruntime") with `threads` CPU threads.

    The encoder's name says which engine runs it. Raises BundleError when the folder is no sound bundle (its files are
    re-hashed) and EngineError when the engine is not installed or this CPU lacks an instruction set the bundle needs.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    check_files(folder, manifest)
    check_instruction_set(manifest.requires_any_of)
    chosen = choose_engine(manifest)[0] if engine == "auto" else engine
    return DualEncoder(
        name=f"{manifest.name} on {chosen}",
        image_tower=load(folder / _file(manifest, "image"), chosen, threads),
        text_tower=load(folder / _file(manifest, "text"), chosen, threads),
        image_spec=ImageSpec.from_folder(folder),
        tokenizer=Tokenizer.from_folder(folder),
        logit_scale=manifest.logit_scale,
    )


def choose_engine(manifest: Manifest) -> tuple[str, str]:
    """Return the engine that "auto" takes for this bundle on this machine, and why, in words."""
    activations = manifest.recipe["activations"]
    dynamic = activations is not None and activations["ranges"] != "static"
    return choose(manifest.requires_any_of, dynamic=dynamic)


def verify(folder: str | Path, *, engine: str = "all", threads: int | None = None) -> VerifyReport:
    """Re-hash every file and re-run the stored probes on `engine` ("all": every installed one).

    Raises BundleError naming the file that was altered or the engine and component whose embeddings differ.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    check_files(folder, manifest)
    check_instruction_set(manifest.requires_any_of)
    probes, spec = Probes.load(folder / PROBES), ImageSpec.from_folder(folder)
    rows = tuple(
        _prove(folder, manifest, probes, spec, name, component, threads)
        for name in (installed_engines() if engine == "all" else (engine,))
        for component in manifest.components
    )
    return VerifyReport(folder, manifest, rows)


def _prove(
    folder: Path,
    manifest: Manifest,
    probes: Probes,
    spec: ImageSpec,
    engine: str,
    component: str,
    threads: int | None,
) -> ProbeRow:
    with load(folder / _file(manifest, component), engine, threads) as session:
        found = session(probes.inputs(component, spec))
    against = agreement(found, probes.expected[component])
    if not against["cosine_min"] >= LEAST_COSINE:
        raise BundleError(
            f"component {component!r} on {engine} gives embeddings with cosine {against['cosine_min']:.4f} to the "
            f"stored ones, expected at least {LEAST_COSINE}; this engine or CPU computes something else"
        )
    return ProbeRow(
        engine=engine,
        component=component,
        cosine_min=against["cosine_min"],
        cosine_to_float_min=agreement(found, probes.float_expected[component])["cosine_min"],
        max_abs_difference=against["max_abs_difference"],
    )


def _file(manifest: Manifest, component: str) -> str:
    if component not in manifest.components:
        raise unknown(BundleError, "component", component, manifest.components)
    return manifest.components[component].file
