"""Opening and proving a BLIP's bundle; needs neither torch nor transformers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from vlmquant.bundle.manifest import Manifest, check_files
from vlmquant.bundle.placement import Placement, place, warnings_of
from vlmquant.engines import GraphSession, load_graph
from vlmquant.engines.memory import return_freed_memory
from vlmquant.engines.session import AnyArray
from vlmquant.errors import BundleError
from vlmquant.models.blip_runner import BlipKind, BlipRunner
from vlmquant.models.generate import DecoderStep, GenerationOptions
from vlmquant.models.spec import ImageSpec
from vlmquant.models.wordpiece import WordPieceTokenizer
from vlmquant.progress import Track, silent

KINDS: tuple[BlipKind, ...] = ("captioning", "vqa", "matching")


def open_blip(
    folder: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    options: GenerationOptions | None = None,
    batch_size: int = 8,
    probe: bool = True,
    track: Track = silent,
) -> BlipRunner:
    """Return a BLIP's bundle as a captioner, answerer or matcher on `engine` with `threads` CPU threads.

    The first time on a machine the bundle is proved there, and "auto" times the engines for each graph; see `place`.
    The runner's name says what runs it and its `notes` what did not run as it should. `probe` False takes it on trust.
    Raises BundleError when the folder is no sound bundle of a BLIP (its files are re-hashed) and EngineError when the
    engine is not installed or no engine gives right results.
    """
    folder = Path(folder)
    manifest = checked_blip(folder)
    placements = place(folder, manifest, engine=engine, threads=threads, probe=probe, track=track)
    return open_placed_blip(folder, manifest, placements, threads, options or GenerationOptions(), batch_size)


def checked_blip(folder: Path) -> Manifest:
    """Return the manifest of a BLIP's bundle after comparing every file with it. Raises BundleError."""
    manifest = Manifest.read(folder)
    blip_kind(manifest, folder)
    check_files(folder, manifest)
    return manifest


def open_placed_blip(
    folder: Path,
    manifest: Manifest,
    placements: Mapping[str, Placement],
    threads: int | None,
    options: GenerationOptions,
    batch_size: int = 8,
) -> BlipRunner:
    """Return a runner whose graphs run where `placements` says; `manifest` is that of the checked `folder`."""
    assert manifest.generation is not None
    runner = load_runner(
        folder,
        placements,
        name=f"{manifest.name} on {' and '.join(dict.fromkeys(str(placed.way) for placed in placements.values()))}",
        kind=blip_kind(manifest, folder),
        generation=manifest.generation,
        threads=threads,
        options=options,
        batch_size=batch_size,
    )
    return replace(runner, notes=warnings_of(placements))


def load_runner(
    folder: Path,
    placements: Mapping[str, Placement],
    *,
    name: str,
    kind: BlipKind,
    generation: Mapping[str, int],
    threads: int | None,
    options: GenerationOptions,
    batch_size: int,
) -> BlipRunner:
    """Load the graphs in `folder`, each where `placements` says, and return their runner.

    `generation` holds start_id, end_id and pad_id.
    """
    loaded = {}
    for graph, placed in placements.items():
        path = folder / graph_file(graph)
        loaded[graph] = load_graph(path, placed.engine, threads, arithmetic=placed.arithmetic)
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
