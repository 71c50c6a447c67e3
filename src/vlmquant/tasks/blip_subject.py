"""A BLIP to be used or evaluated: a bundle on an engine or a checkpoint in torch, with its identity."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.bundle.open import open_placed
from vlmquant.bundle.placement import place
from vlmquant.checkpoints import load_blip
from vlmquant.errors import EngineError
from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import as_writer
from vlmquant.tasks.protocol import digest
from vlmquant.tasks.subject import deciding, engine_facts, package_version


@dataclass(frozen=True, kw_only=True)
class BlipSubject:
    """A runner; `identity` is a sha256 over weights, engine, options and versions, `facts` says them in words."""

    runner: BlipRunner
    identity: str
    facts: Mapping[str, str]


def open_blip_subject(
    model: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    options: GenerationOptions | None = None,
    probe: bool = True,
) -> BlipSubject:
    """Open a bundle folder, a checkpoint folder or a hub id.

    `engine`, `threads` and `probe` are those of a bundle, `device` ("cpu", "cuda" for float16 there, "auto") that of a
    checkpoint. Raises EngineError where one is asked for that the model cannot take, and what `open_bundle` and
    `load_blip` raise.
    """
    options = options or GenerationOptions()
    if (Path(model) / MANIFEST).is_file():
        if device not in ("cpu", "auto"):
            raise EngineError(
                f"{str(model)!r} is a bundle, whose engines run on the CPU; --device {device} needs a checkpoint"
            )
        manifest = checked_bundle(Path(model))
        placements = place(Path(model), manifest, engine=engine, threads=threads, probe=probe)
        runner = as_writer(open_placed(Path(model), manifest, placements, threads, options))
        facts = {
            "kind": "bundle",
            "precision": ", ".join(f"{name} {part.precision}" for name, part in sorted(manifest.components.items())),
            **engine_facts(placements),
            "weights": manifest.identity,
        }
    else:
        if engine not in ("auto", "torch"):
            raise EngineError(
                f"{str(model)!r} is a float checkpoint, which runs in torch, not on {engine!r}; quantize it first"
            )
        loaded = load_blip(model)
        runner = loaded.runner(options, device=device, half=device.startswith("cuda"))
        facts = {
            "kind": "checkpoint",
            "precision": runner.name.removeprefix(loaded.name).strip(" ()"),
            "engine": "torch",
            "engine_version": package_version("torch"),
            "weights": loaded.identity,
        }
    facts["vlmquant"] = package_version("vlmquant")
    identity = digest(deciding(facts), asdict(options), asdict(runner.image_spec))
    return BlipSubject(runner=runner, identity=identity, facts=facts)
