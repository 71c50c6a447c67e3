"""A model as the evaluation sees it: an encoder and everything that decides which numbers it gives."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.bundle.open import open_placed
from vlmquant.bundle.placement import Placement, in_words, place, warnings_of
from vlmquant.checkpoints import load_model
from vlmquant.engines import engine as engine_called
from vlmquant.errors import EngineError
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.heads import as_encoder
from vlmquant.tasks.protocol import digest

if TYPE_CHECKING:
    from vlmquant.checkpoints.clip import ClipModel

WARNING = "engine_warning"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An encoder with its identity.

    `identity` is a sha256 over weights, preprocessing, tokenizer, engine and versions: equal identities give equal
    embeddings. `facts` says the same in words for the result, `preprocessing` is the digest of the image steps.
    """

    encoder: DualEncoder
    identity: str
    preprocessing: str
    facts: Mapping[str, str]


def open_subject(model: str | Path, *, engine: str = "auto", threads: int | None = None, probe: bool = True) -> Subject:
    """Open a bundle folder, a checkpoint folder or a hub id.

    `engine`, `threads` and `probe` are those of a bundle; a checkpoint runs in torch, and EngineError is raised when
    another engine is asked for. Otherwise raises what `open_bundle` and `load_model` raise.
    """
    if (Path(model) / MANIFEST).is_file():
        return _open_bundle(Path(model), engine, threads, probe)
    if engine not in ("auto", "torch"):
        raise EngineError(
            f"{str(model)!r} is a float checkpoint, which runs in torch, not on {engine!r}; quantize it first"
        )
    return checkpoint_subject(load_model(model))


def _open_bundle(folder: Path, engine: str, threads: int | None, probe: bool) -> Subject:
    manifest = checked_bundle(folder)
    placements = place(folder, manifest, engine=engine, threads=threads, probe=probe)
    encoder = as_encoder(open_placed(folder, manifest, placements, threads))
    components = {name: facts.precision for name, facts in manifest.components.items()}
    facts = {
        "kind": "bundle",
        "precision": ", ".join(f"{name} {precision}" for name, precision in sorted(components.items())),
        **engine_facts(placements),
        "weights": manifest.identity,
        "vlmquant": package_version("vlmquant"),
    }
    return subject_of(encoder, facts)


def engine_facts(placements: Mapping[str, Placement]) -> dict[str, str]:
    """Return what runs the components of a bundle, in words; "engine_warning" where one does not run as it should."""
    used = sorted({placed.engine for placed in placements.values()})
    versions = ", ".join(f"{name} {engine_called(name).version}" for name in used)
    facts = {
        "engine": in_words(placements),
        "engine_version": versions if len(used) > 1 else engine_called(used[0]).version,
    }
    return facts | ({WARNING: "; ".join(found)} if (found := warnings_of(placements)) else {})


def deciding(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what of `facts` decides the numbers, in order: all but the words of a warning."""
    return sorted((name, value) for name, value in facts.items() if name != WARNING)


def checkpoint_subject(loaded: "ClipModel") -> Subject:
    """Return a loaded checkpoint as it runs in torch."""
    facts = {
        "kind": "checkpoint",
        "precision": "float32",
        "engine": "torch",
        "engine_version": package_version("torch"),
        "weights": loaded.identity,
        "vlmquant": package_version("vlmquant"),
    }
    return subject_of(loaded.encoder(), facts)


def subject_of(encoder: DualEncoder, facts: Mapping[str, str]) -> Subject:
    """Return an encoder with the identity that `facts` (weights, precision, engine, versions) give it."""
    preprocessing = digest(asdict(encoder.image_spec))
    return Subject(
        encoder=encoder,
        identity=digest(deciding(facts), preprocessing, package_version("pillow"), package_version("tokenizers")),
        preprocessing=preprocessing,
        facts=facts,
    )


def package_version(package: str) -> str:
    """Return the version of an installed distribution, "unknown" where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
