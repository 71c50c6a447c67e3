"""Opening and proving a BLIP's bundle; needs neither torch nor transformers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from vlmquant.bundle.blip_probes import BlipProbes, BlipResults, run_probes
from vlmquant.bundle.manifest import Manifest, check_files
from vlmquant.engines import GraphSession, check_instruction_set, choose, load_graph
from vlmquant.engines.memory import return_freed_memory
from vlmquant.engines.session import AnyArray
from vlmquant.errors import BundleError
from vlmquant.models.blip_runner import BlipKind, BlipRunner
from vlmquant.models.generate import DecoderStep, GenerationOptions
from vlmquant.models.spec import ImageSpec
from vlmquant.models.wordpiece import WordPieceTokenizer

KINDS: tuple[BlipKind, ...] = ("captioning", "vqa", "matching")


def open_blip(
    folder: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    options: GenerationOptions | None = None,
    batch_size: int = 8,
) -> BlipRunner:
    """Return a BLIP's bundle as a captioner, answerer or matcher on `engine` with `threads` CPU threads.

    "auto" chooses an engine for each graph by its recipe. The runner's name says which engines run it. Raises
    BundleError when the folder is no sound bundle of a BLIP (its files are re-hashed) and EngineError when the engine
    is not installed or this CPU lacks an instruction set the bundle needs.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    kind = blip_kind(manifest, folder)
    check_files(folder, manifest)
    check_instruction_set(manifest.requires_any_of)
    engines = {graph: blip_engine(manifest, graph) if engine == "auto" else engine for graph in manifest.components}
    assert manifest.generation is not None
    return load_runner(
        folder,
        engines,
        name=f"{manifest.name} on {' and '.join(dict.fromkeys(engines.values()))}",
        kind=kind,
        generation=manifest.generation,
        threads=threads,
        options=options or GenerationOptions(),
        batch_size=batch_size,
    )


def load_runner(
    folder: Path,
    engines: Mapping[str, str],
    *,
    name: str,
    kind: BlipKind,
    generation: Mapping[str, int],
    threads: int | None,
    options: GenerationOptions,
    batch_size: int,
) -> BlipRunner:
    """Load the graphs in `folder`, each on the engine that `engines` names for it, and return their runner.

    `generation` holds start_id, end_id and pad_id.
    """
    loaded = {}
    for graph, engine in engines.items():
        loaded[graph] = load_graph(folder / graph_file(graph), engine, threads)
        return_freed_memory()
    # One output each, but for these two, which return what the decoding loop wants from them.
    single = {graph: _first(session) for graph, session in loaded.items() if graph not in ("cross", "decoder")}
    return BlipRunner(
        name=name,
        kind=kind,
        vision=single["vision"],
        cross=loaded.get("cross"),
        decoder=cast(DecoderStep | None, loaded.get("decoder")),
        question_encoder=single.get("question_encoder"),
        matcher=single.get("matcher"),
        image_spec=ImageSpec.from_folder(folder),
        tokenizer=WordPieceTokenizer.from_folder(folder),
        start_id=generation["start_id"],
        end_id=generation["end_id"],
        pad_id=generation["pad_id"],
        options=options,
        batch_size=batch_size,
    )


def graph_file(graph: str) -> str:
    """Return the name of the file that holds one graph."""
    return f"{graph}.onnx"


def _first(session: GraphSession) -> Callable[..., AnyArray]:
    return lambda *arrays: session(*arrays)[0]


def blip_kind(manifest: Manifest, folder: Path) -> BlipKind:
    """Return the kind of a BLIP's bundle. Raises BundleError for a bundle of another model."""
    for kind in KINDS:
        if manifest.kind == kind:
            return kind
    raise BundleError(
        f"{str(folder)!r} holds {manifest.name!r} of kind {manifest.kind!r}, no BLIP ({', '.join(KINDS)}); "
        "open it with open_bundle"
    )


def blip_engine(manifest: Manifest, graph: str) -> str:
    """Return the engine that "auto" takes for one graph of a BLIP on this machine.

    A step of the decoder does little but read its weights. With integer activations, at the size of BLIP base, ONNX
    Runtime took 0.8 of OpenVINO's CPU time for it and two thirds of the memory; it reads integer weights next to float
    activations only through a float copy, which OpenVINO does not.
    """
    recipe = manifest.recipe["by_graph"][graph]
    activations = None if recipe is None else recipe["activations"]
    integers = activations is not None and (graph == "decoder" or activations["ranges"] != "static")
    return choose(manifest.requires_any_of, dynamic=integers)[0]


def probe_results(
    folder: Path, manifest: Manifest, probes: BlipProbes, engine: str, threads: int | None
) -> BlipResults:
    """Return what the graphs of a bundle, whose files must have been checked, make of its probes on `engine`."""
    assert manifest.generation is not None
    runner = load_runner(
        folder,
        dict.fromkeys(manifest.components, engine),
        name=engine,
        kind=blip_kind(manifest, folder),
        generation=manifest.generation,
        threads=threads,
        options=GenerationOptions(),
        batch_size=len(probes.images),
    )
    return run_probes(runner, probes)
