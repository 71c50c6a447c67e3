"""`open_named`: a bundle on the engines of this machine, or a float checkpoint in torch, with its identity."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.bundle.open import open_placed
from vlmquant.bundle.placement import AUTO, Placement, in_words, place, warnings_of
from vlmquant.checkpoints import heads_of, load_checkpoint
from vlmquant.engines import engine as engine_called
from vlmquant.errors import EngineError, ModelError
from vlmquant.files import digest
from vlmquant.limits import check_threads
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import Runner
from vlmquant.models.spec import Head
from vlmquant.models.writer import Writer
from vlmquant.opening.facts import ModelFacts, facts_of_bundle, facts_of_checkpoint
from vlmquant.opening.first_use import BUNDLED, bundle_of, bundled_calibration
from vlmquant.progress import Track, silent

if TYPE_CHECKING:
    from vlmquant.checkpoints.blip import BlipModel
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.checkpoints.clip import ClipModel
    from vlmquant.checkpoints.families import FloatModel

TORCH = "torch"
WARNING = "engine_warning"
READERS = ("pillow", "tokenizers", "numpy")
"""Packages that turn pictures and texts into a model's input; their versions are part of every identity."""
CAN: Mapping[Head, str] = {
    "dual-encoder": "finds events (detect) and compares pictures with texts (evaluate)",
    "captioner": "writes captions (caption, evaluate)",
    "answerer": "answers questions (answer, evaluate)",
    "matcher": "tells whether a text describes a picture (evaluate)",
}
"""What a model of each head is for, in words."""


@dataclass(frozen=True, kw_only=True)
class RunsOn:
    """What runs a model.

    `engine` is "auto" or one of `ENGINES` for a bundle, and "torch" for a float checkpoint, which then is not
    quantized on first use. `threads` are the engine's (its own choice when None), `device` is a checkpoint's: "cpu",
    "cuda" (a BLIP in float16 there), "cuda:1" or "auto". `probe` False takes a bundle on trust. `allow_pickle` also
    reads a checkpoint whose weights are a pickle.
    """

    engine: str = AUTO
    threads: int | None = None
    device: str = "cpu"
    probe: bool = True
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that runs, and everything that is known of it.

    `identity` is a sha256 over all that changes a result: weights, configuration, preprocessing, tokenizer, engine,
    options of generation and versions. `facts` says the same in words, for every result; `about` says what the model
    costs and `notes` what a user has to know, one sentence each.
    """

    runner: Runner
    head: Head
    identity: str
    facts: Mapping[str, str]
    about: ModelFacts
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in tables; says what runs it."""
        return self.runner.name

    @property
    def encoder(self) -> DualEncoder:
        """The runner of a dual encoder. Raises ModelError for another head."""
        if not isinstance(self.runner, DualEncoder):
            raise wrong_head(self.name, self.head, "dual-encoder")
        return self.runner

    @property
    def generator(self) -> Writer:
        """The runner of a captioner, answerer or matcher. Raises ModelError for a dual encoder."""
        if not isinstance(self.runner, Writer):
            raise wrong_head(self.name, self.head, "captioner")
        return self.runner


def open_named(
    name: str | Path | None,
    *,
    head: Head | None = None,
    runs_on: RunsOn | None = None,
    options: GenerationOptions | None = None,
    calibrate: "Callable[[], CalibrationSet] | None" = None,
    track: Track = silent,
) -> Opened:
    """Open a bundle folder, a checkpoint folder or a hub id; None is the bundled demonstration model for `head`.

    `head` is what the model must be, where only one will do. `options` are those of generated texts. A checkpoint runs
    in torch, unless `calibrate` returns the inputs to quantize it with on first use (the bundled model always is,
    unless `runs_on` asks for torch); the bundle is kept under the checkpoint's identity.

    Raises ModelError, BundleError and EngineError; ModelError says what the model can do where its head is another.
    """
    runs_on, options = runs_on or RunsOn(), options or GenerationOptions()
    if name is not None and (Path(name) / MANIFEST).is_file():
        return _bundle(Path(name), head, runs_on, options, track)
    notes: tuple[str, ...] = ()
    if name is None:
        name = _bundled(head)
        calibrate = calibrate or bundled_calibration
        notes = ("no model given (-m): using the bundled demonstration model, which only knows drawn street scenes",)
    if calibrate is None or runs_on.engine == TORCH:
        model = _loaded(name, head, runs_on)
        found = opened_checkpoint(model, options=options, device=runs_on.device)
        return replace(found, notes=(*notes, f"running {model.name} unquantized ({found.facts['precision']}, torch)"))
    _check_on_cpu(name, runs_on)
    model = _loaded(name, head, RunsOn(allow_pickle=runs_on.allow_pickle))
    folder, fresh = bundle_of(model, calibrate, track)
    made = (f"quantized {model.name} on first use; kept in {folder}",) if fresh else ()
    found = _bundle(folder, head, runs_on, options, track)
    return replace(found, notes=(*notes, *made, *found.notes))


def opened_checkpoint(model: "FloatModel", *, options: GenerationOptions | None = None, device: str = "cpu") -> Opened:
    """Return a loaded checkpoint as it runs in torch.

    `options` and `device` are a BLIP's; a dual encoder runs where its weights are.
    """
    runner, precision = _torch_runner(model, options or GenerationOptions(), device)
    facts = {
        "kind": "checkpoint",
        "precision": precision,
        "engine": TORCH,
        "engine_version": package_version(TORCH),
        "weights": model.identity,
        "vlmquant": package_version("vlmquant"),
    }
    return Opened(
        runner=runner,
        head=model.head,
        identity=_identity(runner, facts, package_version("transformers")),
        facts=facts,
        about=facts_of_checkpoint(model.name, model.folder, model.components),
    )


def wrong_head(name: str, is_a: Head, wanted: Head) -> ModelError:
    """Return (not raise) the error for a model of another head; the message says what this one is for."""
    return ModelError(f"{name!r} is {a(is_a)}, which {CAN[is_a]}; this takes {a(wanted)}, which {CAN[wanted]}")


def a(head: Head) -> str:
    """Return a head with its article."""
    return f"an {head}" if head[0] in "aeiou" else f"a {head}"


def _bundled(head: Head | None) -> Path:
    if head not in BUNDLED:
        raise ModelError(
            f"no model was named, and {a(head) if head else 'a model for all'} is not bundled; name one (-m)"
        )
    try:
        from streetworld import checkpoint
    except ModuleNotFoundError as error:
        raise ModelError(
            "no model was named, and the demonstration models are not installed; "
            "name one (-m), or install them: pip install 'vlmquant[demo]'"
        ) from error
    return checkpoint(BUNDLED[head])


def _bundle(folder: Path, head: Head | None, runs_on: RunsOn, options: GenerationOptions, track: Track) -> Opened:
    if runs_on.engine == TORCH:
        raise EngineError(
            f"{str(folder)!r} is a quantized bundle; to run in torch (--float), name the checkpoint it was made from"
        )
    _check_on_cpu(folder, runs_on)
    # What it is for is said before the work of checking it.
    _check_head(str(folder), Manifest.read(folder).head.name, head)
    manifest = checked_bundle(folder)
    placements = place(
        folder, manifest, engine=runs_on.engine, threads=runs_on.threads, probe=runs_on.probe, track=track
    )
    runner = open_placed(folder, manifest, placements, runs_on.threads, options)
    about = facts_of_bundle(folder, manifest)
    facts = {
        "kind": "bundle",
        "precision": ", ".join(f"{name} {part.precision}" for name, part in sorted(manifest.components.items())),
        **_engine_facts(placements),
        "weights": manifest.identity,
        "vlmquant": package_version("vlmquant"),
    }
    calibrated = f", calibrated on {about.calibrated_on}" if about.calibrated_on else ""
    return Opened(
        runner=runner,
        head=manifest.head.name,
        identity=_identity(runner, facts),
        facts=facts,
        about=about,
        notes=(*runner.notes, f"engine: {_reasons(placements)}", f"model: {manifest.name}{calibrated}"),
    )


def _reasons(placements: Mapping[str, Placement]) -> str:
    """Return what runs each component and why; once where it is the same for all."""
    components: dict[str, list[str]] = {}
    for component, placed in placements.items():
        components.setdefault(f"{placed.way} ({placed.reason})", []).append(component)
    if len(components) == 1:
        return next(iter(components))
    return "; ".join(f"{', '.join(names)} on {reason}" for reason, names in components.items())


def _loaded(name: str | Path, head: Head | None, runs_on: RunsOn) -> "FloatModel":
    if runs_on.engine not in (AUTO, TORCH):
        raise EngineError(
            f"{str(name)!r} is a float checkpoint, which runs in torch, not on {runs_on.engine!r}; quantize it first"
        )
    # What writes is moved when its runner is made, in half the bytes.
    pickles = runs_on.allow_pickle
    device = runs_on.device if "dual-encoder" in heads_of(name, allow_pickle=pickles) else "cpu"
    model = load_checkpoint(name, allow_pickle=pickles, device=device)
    _check_head(model.name, model.head, head)
    return model


def _torch_runner(model: "FloatModel", options: GenerationOptions, device: str) -> tuple[Runner, str]:
    """Return the runner, and its precision in words."""
    if model.head == "dual-encoder":
        clip = cast("ClipModel", model)
        target = next(clip.image_tower.parameters()).device.type
        return clip.encoder(), "float32" if target == "cpu" else f"float32, {target}"
    runner = cast("BlipModel", model).runner(options, device=device, half=device.startswith("cuda"))
    return runner, runner.name.removeprefix(model.name).strip(" ()")


def _engine_facts(placements: Mapping[str, Placement]) -> dict[str, str]:
    """Return what runs the components of a bundle, in words, with a warning where one does not run as it should."""
    used = sorted({placed.engine for placed in placements.values()})
    versions = ", ".join(f"{name} {engine_called(name).version}" for name in used)
    facts = {
        "engine": in_words(placements),
        "engine_version": versions if len(used) > 1 else engine_called(used[0]).version,
    }
    return facts | ({WARNING: "; ".join(found)} if (found := warnings_of(placements)) else {})


def _identity(runner: Runner, facts: Mapping[str, str], *more: str) -> str:
    options = asdict(runner.options) if isinstance(runner, Writer) else None
    versions = [package_version(package) for package in READERS]
    return digest(deciding(facts), asdict(runner.image_spec), options, versions, more)


def _check_head(name: str, is_a: Head, wanted: Head | None) -> None:
    if wanted is not None and is_a != wanted:
        raise wrong_head(name, is_a, wanted)


def _check_on_cpu(name: str | Path, runs_on: RunsOn) -> None:
    if runs_on.device not in ("cpu", "auto"):
        raise EngineError(
            f"{str(name)!r} runs as a bundle, whose engines run on the CPU; --device {runs_on.device} needs a "
            "checkpoint that is not quantized"
        )


def deciding(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what of `facts` decides the numbers, in order: all but the words of a warning."""
    return sorted((name, value) for name, value in facts.items() if name != WARNING)


def package_version(package: str) -> str:
    """Return the version of an installed distribution, "unknown" where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
