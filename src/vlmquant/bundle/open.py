"""Opening a bundle of any head; needs neither torch nor transformers."""

from collections.abc import Mapping
from pathlib import Path

from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.load import load_graphs
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement import Placement, in_words, place, warnings_of
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import Runner
from vlmquant.progress import Track, silent


def open_bundle(
    folder: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    probe: bool = True,
    track: Track = silent,
    options: GenerationOptions | None = None,
) -> Runner:
    """Return what a bundle's head is, running on `engine` ("auto" or one of `ENGINES`) with `threads` threads.

    A dual encoder is a `DualEncoder`; a captioner, answerer or matcher is a `Writer`, which writes as `options`
    say. The first time on a machine the bundle is proved there, and "auto" times the engines for each graph; see
    `place`. The runner's name says what runs it and its `notes` what did not run as it should. `probe` False takes it
    on trust. Raises BundleError when the folder is not a sound bundle (its files are re-hashed) and EngineError when
    the engine is not installed or no engine gives right results.
    """
    folder = Path(folder)
    manifest = checked_bundle(folder)
    placements = place(folder, manifest, engine=engine, threads=threads, probe=probe, track=track)
    return open_placed(folder, manifest, placements, threads, options)


def open_placed(
    folder: Path,
    manifest: Manifest,
    placements: Mapping[str, Placement],
    threads: int | None,
    options: GenerationOptions | None = None,
) -> Runner:
    """Return a runner whose graphs run where `placements` says; `manifest` is that of the checked `folder`."""
    return manifest.head.runner(
        f"{manifest.name} on {in_words(placements)}",
        load_graphs(folder, manifest, {name: placed.way for name, placed in placements.items()}, threads),
        folder,
        options or GenerationOptions(),
        warnings_of(placements),
    )
