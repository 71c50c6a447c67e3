"""Checkpoints as dual encoders."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlmquant.models.spec import Encoder, ImageSpec

if TYPE_CHECKING:
    from vlmquant.models.clip import ClipModel

__all__ = ["Encoder", "ImageSpec", "load_model"]


def load_model(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> "ClipModel":
    """Load a float32 CLIP from a Hugging Face folder or hub id onto `device` ("cpu", "cuda", "cuda:1").

    A CLIP-ResNet in OpenAI's names opens too; `vlmquant.models.resnet` says what its folder must hold. Weights are
    read from safetensors; `allow_pickle` also admits `pytorch_model.bin`, read by torch with `weights_only=True`.
    Raises ModelError when the checkpoint is missing, unsafe, broken or not a CLIP.
    """
    try:
        from vlmquant.models.checkpoint import Checkpoint, usable_device
        from vlmquant.models.clip import load_clip
        from vlmquant.models.resnet import load_clip_resnet
    except ModuleNotFoundError as error:
        from vlmquant.errors import ModelError

        raise ModelError(
            f"loading a float checkpoint needs {error.name}; install it with: pip install 'vlmquant[quantize]'"
        ) from error
    from vlmquant.models.hub import resolve

    loaders = {"clip": load_clip, "clip-resnet": load_clip_resnet}
    target = usable_device(device)
    checkpoint = Checkpoint.open(resolve(name_or_path, allow_pickle=allow_pickle), loaders, allow_pickle)
    name = Path(name_or_path).name or checkpoint.folder.name
    return loaders[checkpoint.model_type](checkpoint, name, target)
