"""Float checkpoints of every family, read from folders and hub ids."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from vlmquant.checkpoints.blip import BlipModel
    from vlmquant.checkpoints.clip import ClipModel
    from vlmquant.checkpoints.families import FloatModel
    from vlmquant.models.spec import Head

__all__ = ["heads_of", "load_blip", "load_checkpoint", "load_model"]

GENERATORS: "tuple[Head, ...]" = ("captioner", "answerer", "matcher")
"""The heads of a BLIP."""


def load_checkpoint(
    name_or_path: str | Path,
    *,
    allow_pickle: bool = False,
    device: str = "cpu",
    heads: "tuple[Head, ...] | None" = None,
) -> "FloatModel":
    """Load the float32 model of any family from a Hugging Face folder or hub id (`organisation/name[@revision]`).

    Its `head` says what it is: "dual-encoder" is a `ClipModel`, whatever its towers are; the others are a `BlipModel`.
    `device` is "cpu", "cuda", "cuda:1" or "auto". Weights are read from safetensors; `allow_pickle` also admits
    `pytorch_model.bin`, read by torch with `weights_only=True`. `heads`, where given, are those that will do. Raises
    ModelError when the checkpoint is missing, unsafe, broken, of no family here (it lists them) or has another head.
    """
    _need_torch()
    from vlmquant.checkpoints.checkpoint import Checkpoint, read_config, usable_device
    from vlmquant.checkpoints.families import FAMILIES
    from vlmquant.checkpoints.hub import resolve
    from vlmquant.errors import ModelError

    target = usable_device(device)
    folder = resolve(name_or_path, allow_pickle=allow_pickle)
    name = Path(name_or_path).name or folder.name
    config = read_config(folder, FAMILIES)
    family = FAMILIES[config["model_type"]]
    if heads is not None and not set(heads) & set(family.heads):
        others = " or ".join(other.title for other in FAMILIES.values() if set(heads) & set(other.heads))
        raise ModelError(f"{name!r} is {family.title} ({' or '.join(family.heads)}); expected {others}")
    return family.read(Checkpoint.open(folder, config, allow_pickle), name, target)


def load_model(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> "ClipModel":
    """Load a float32 CLIP, whose images and texts share a space; see `load_checkpoint`.

    A CLIP-ResNet in OpenAI's names opens too; `vlmquant.checkpoints.clip.resnet` says what its folder must hold.
    """
    found = load_checkpoint(name_or_path, allow_pickle=allow_pickle, device=device, heads=("dual-encoder",))
    return cast("ClipModel", found)


def load_blip(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> "BlipModel":
    """Load a float32 BLIP for captioning, question answering or matching; see `load_checkpoint`."""
    found = load_checkpoint(name_or_path, allow_pickle=allow_pickle, device=device, heads=GENERATORS)
    return cast("BlipModel", found)


def heads_of(name_or_path: str | Path, *, allow_pickle: bool = False) -> "tuple[Head, ...]":
    """Return the heads that the family of a folder or hub id can have; reads its `config.json` and no weights."""
    _need_torch()
    import json

    from vlmquant.checkpoints.families import FAMILIES
    from vlmquant.checkpoints.hub import resolve

    config = resolve(name_or_path, allow_pickle=allow_pickle) / "config.json"
    try:
        return FAMILIES[json.loads(config.read_text(encoding="utf-8"))["model_type"]].heads
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # loading it says what is wrong


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        from vlmquant.errors import ModelError

        raise ModelError(
            f"loading a float checkpoint needs {error.name}; install it with: pip install 'vlmquant[quantize]'"
        ) from error
