"""Opening and proving a bundle; needs neither torch nor transformers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vlmquant.bundle.blip_probes import load_probes
from vlmquant.bundle.blip_runtime import probe_results
from vlmquant.bundle.manifest import Manifest, check_files
from vlmquant.bundle.probes import PROBES, Probes, agreement
from vlmquant.engines import check_instruction_set, choose, installed_engines, load
from vlmquant.errors import BundleError, unknown
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import FloatArray, ImageSpec
from vlmquant.models.tokenizer import Tokenizer

# Another CPU or thread count adds sums in another order, which moves a few numbers across a rounding border; through
# later layers that grows to another draw of the whole rounding noise. What the noise is, the stored results know: that
# far they are from the float model's, and two draws of it are at most twice as far apart (in 1 - cosine). On RN50 with
# random weights an engine is 0.00024 from itself when its input moves by 1e-5, and the noise is 0.00035.
LEAST_COSINE = 0.999
TWO_DRAWS = 2.0


@dataclass(frozen=True)
class ProbeRow:
    """How one engine agreed with the stored results of one component: embeddings, states or logits.

    `equal_tokens` is the share (0 to 1) of tokens that came out as stored, where the component writes tokens.
    """

    engine: str
    component: str
    cosine_min: float
    cosine_to_float_min: float
    max_abs_difference: float
    equal_tokens: float | None = None


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
    if manifest.logit_scale is None:
        raise BundleError(
            f"{str(folder)!r} holds {manifest.name!r}, a BLIP for {manifest.kind}; open it with open_blip"
        )
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
    engines = installed_engines() if engine == "all" else (engine,)
    if manifest.kind == "encoder":
        probes, spec = Probes.load(folder / PROBES), ImageSpec.from_folder(folder)
        rows = tuple(
            _prove(folder, manifest, probes, spec, name, component, threads)
            for name in engines
            for component in manifest.components
        )
    else:
        rows = tuple(row for name in engines for row in _prove_blip(folder, manifest, name, threads))
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
    return _row(engine, component, found, probes.expected[component], probes.float_expected[component])


def _prove_blip(folder: Path, manifest: Manifest, engine: str, threads: int | None) -> Iterator[ProbeRow]:
    probes, expected, float_expected = load_probes(folder / PROBES)
    found = probe_results(folder, manifest, probes, engine, threads)
    for graph in manifest.components:
        row = _row(engine, graph, found.rows[graph], expected.rows[graph], float_expected.rows[graph])
        yield replace(row, equal_tokens=found.equal_tokens(expected)) if graph == "decoder" else row


def _row(engine: str, component: str, found: FloatArray, expected: FloatArray, float_expected: FloatArray) -> ProbeRow:
    against = agreement(found, expected)
    least = min(LEAST_COSINE, 1 - TWO_DRAWS * (1 - agreement(expected, float_expected)["cosine_min"]))
    if not against["cosine_min"] >= least:
        raise BundleError(
            f"component {component!r} on {engine} gives results with cosine {against['cosine_min']:.4f} to the "
            f"stored ones, expected at least {least:.4f}; this engine or CPU computes something else"
        )
    return ProbeRow(
        engine=engine,
        component=component,
        cosine_min=against["cosine_min"],
        cosine_to_float_min=agreement(found, float_expected)["cosine_min"],
        max_abs_difference=against["max_abs_difference"],
    )


def _file(manifest: Manifest, component: str) -> str:
    if component not in manifest.components:
        raise unknown(BundleError, "component", component, manifest.components)
    return manifest.components[component].file
