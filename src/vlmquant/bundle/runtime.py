"""Opening and proving a bundle; needs neither torch nor transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmquant.bundle.manifest import Manifest, check_files
from vlmquant.bundle.placement import Placement, in_words, place, warnings_of
from vlmquant.bundle.proof import ProbeRow, prove
from vlmquant.engines import installed_engines, load
from vlmquant.errors import BundleError
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import ImageSpec
from vlmquant.models.tokenizer import Tokenizer
from vlmquant.progress import Track, silent


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify`: the manifest and one row per engine and component."""

    folder: Path
    manifest: Manifest
    rows: tuple[ProbeRow, ...]


def open_bundle(
    folder: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    probe: bool = True,
    track: Track = silent,
) -> DualEncoder:
    """Return a bundle as an encoder on `engine` ("auto", "openvino" or "onnxruntime") with `threads` CPU threads.

    The first time on a machine the bundle is proved there, and "auto" times the engines; see `place`. The encoder's
    name says what runs it and its `notes` what did not run as it should. `probe` False takes it on trust. Raises
    BundleError when the folder is no sound bundle (its files are re-hashed) and EngineError when the engine is not
    installed or no engine gives right results.
    """
    folder = Path(folder)
    manifest = checked_encoder(folder)
    placements = place(folder, manifest, engine=engine, threads=threads, probe=probe, track=track)
    return open_placed(folder, manifest, placements, threads)


def checked_encoder(folder: Path) -> Manifest:
    """Return the manifest of an encoder's bundle after comparing every file with it. Raises BundleError."""
    manifest = Manifest.read(folder)
    if manifest.logit_scale is None:
        raise BundleError(
            f"{str(folder)!r} holds {manifest.name!r}, a BLIP for {manifest.kind}; open it with open_blip"
        )
    check_files(folder, manifest)
    return manifest


def open_placed(
    folder: Path, manifest: Manifest, placements: Mapping[str, Placement], threads: int | None
) -> DualEncoder:
    """Return an encoder whose towers run where `placements` says; `manifest` is that of the checked `folder`."""
    towers = {
        component: load(
            folder / manifest.components[component].file, placed.engine, threads, arithmetic=placed.arithmetic
        )
        for component, placed in placements.items()
    }
    assert manifest.logit_scale is not None
    return DualEncoder(
        name=f"{manifest.name} on {in_words(placements)}",
        image_tower=towers["image"],
        text_tower=towers["text"],
        image_spec=ImageSpec.from_folder(folder),
        tokenizer=Tokenizer.from_folder(folder),
        logit_scale=manifest.logit_scale,
        notes=warnings_of(placements),
    )


def verify(folder: str | Path, *, engine: str = "all", threads: int | None = None) -> VerifyReport:
    """Re-hash every file and re-run the stored probes on `engine` ("all": every installed one).

    Raises BundleError naming the file that was altered or the engine and component whose embeddings differ.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    check_files(folder, manifest)
    engines = installed_engines() if engine == "all" else (engine,)
    rows = []
    for name in engines:
        for row in prove(folder, manifest, name, list(manifest.components), threads=threads):
            if not row.right:
                raise BundleError(
                    f"component {row.component!r} on {name} gives results with cosine {row.cosine_min:.4f} to the "
                    f"stored ones, expected at least {row.floor:.4f}; this engine or CPU computes something else"
                )
            rows.append(row)
    return VerifyReport(folder, manifest, tuple(rows))
