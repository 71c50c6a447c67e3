"""Float checkpoints of every family, read from folders and hub ids."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmquant.checkpoints.blip import BlipModel
    from vlmquant.checkpoints.checkpoint import Checkpoint
    from vlmquant.checkpoints.clip import ClipModel

__all__ = ["is_blip", "load_blip", "load_model"]

ENCODERS = ("clip", "clip-resnet")
"""`model_type` of `config.json` that `load_model` reads; "blip" is `load_blip`'s."""


def load_model(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> "ClipModel":
    """Load a float32 CLIP from a Hugging Face folder or hub id onto `device` ("cpu", "cuda", "cuda:1", "auto").

    A CLIP-ResNet in OpenAI's names opens too; `vlmquant.checkpoints.resnet` says what its folder must hold. Weights are
    read from safetensors; `allow_pickle` also admits `pytorch_model.bin`, read by torch with `weights_only=True`.
    Raises ModelError when the checkpoint is missing, unsafe, broken or not a CLIP.
    """
    checkpoint, name = _open(name_or_path, allow_pickle)
    from vlmquant.checkpoints.checkpoint import usable_device
    from vlmquant.checkpoints.clip import load_clip
    from vlmquant.checkpoints.resnet import load_clip_resnet
    from vlmquant.errors import ModelError

    if checkpoint.model_type not in ENCODERS:
        raise ModelError(f"{name!r} is a BLIP, which has no common space of images and texts; open it with load_blip")
    load = load_clip if checkpoint.model_type == "clip" else load_clip_resnet
    return load(checkpoint, name, usable_device(device))


def load_blip(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> "BlipModel":
    """Load a float32 BLIP for captioning, question answering or matching from a Hugging Face folder or hub id.

    `device` and `allow_pickle` are those of `load_model`. Raises ModelError when the checkpoint is missing, unsafe,
    broken or not such a BLIP.
    """
    checkpoint, name = _open(name_or_path, allow_pickle)
    from vlmquant.checkpoints.blip import load_blip_checkpoint
    from vlmquant.checkpoints.checkpoint import usable_device
    from vlmquant.errors import ModelError

    if checkpoint.model_type != "blip":
        raise ModelError(f"{name!r} is no BLIP but of model_type {checkpoint.model_type!r}; open it with load_model")
    return load_blip_checkpoint(checkpoint, name, usable_device(device))


def is_blip(name_or_path: str | Path, *, allow_pickle: bool = False) -> bool:
    """Whether the `config.json` of a folder or hub id says that it is `load_blip`'s; reads no weights."""
    import json

    from vlmquant.checkpoints.hub import resolve

    config = resolve(name_or_path, allow_pickle=allow_pickle) / "config.json"
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("model_type") == "blip")
    except (OSError, ValueError, AttributeError):
        return False  # loading it says what is wrong


def _open(name_or_path: str | Path, allow_pickle: bool) -> "tuple[Checkpoint, str]":
    """Return the checkpoint and what to call it."""
    try:
        import transformers  # noqa: F401

        from vlmquant.checkpoints.checkpoint import Checkpoint
    except ModuleNotFoundError as error:
        from vlmquant.errors import ModelError

        raise ModelError(
            f"loading a float checkpoint needs {error.name}; install it with: pip install 'vlmquant[quantize]'"
        ) from error
    from vlmquant.checkpoints.hub import resolve

    checkpoint = Checkpoint.open(resolve(name_or_path, allow_pickle=allow_pickle), (*ENCODERS, "blip"), allow_pickle)
    return checkpoint, Path(name_or_path).name or checkpoint.folder.name
