"""CLIP in Hugging Face form as two float32 towers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from vlmquant.errors import ModelError, unknown
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import FloatArray, IdArray, ImageSpec
from vlmquant.models.tokenizer import Tokenizer

MODEL_TYPES = ("clip",)
RANDOM_WEIGHTS_KEY = "vlmquant_random_weights"
"""Key of `config.json` that says the weights were drawn, not trained."""
_GREATEST_ID_POOLING = 2
"""transformers reads a text `eos_token_id` of 2, a mistake in early CLIP configurations, as "the greatest id"."""


class ImageTower(nn.Module):
    """Pixels (n, 3, height, width) float32 to features (n, d) float32, not normalized."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the vision transformer and project its pooled class token."""
        return cast(Tensor, self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output))


class TextTower(nn.Module):
    """Token ids (n, length) int64 to features (n, d) float32, not normalized.

    Attention is causal and the features are those of the first end token, so padding after it changes nothing.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.text_model = clip.text_model
        self.text_projection = clip.text_projection

    def forward(self, ids: Tensor) -> Tensor:
        """Run the text transformer and project its state at the first end token."""
        return cast(Tensor, self.text_projection(self.text_model(input_ids=ids).pooler_output))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipModel:
    """A float32 checkpoint with everything needed to run it.

    `logit_scale` is the factor itself, not its logarithm. `weights_sha256` is over the bytes of the weight files, in
    the order of their names.
    """

    name: str
    folder: Path
    image_tower: nn.Module
    text_tower: nn.Module
    image_spec: ImageSpec
    tokenizer: Tokenizer
    logit_scale: float
    weights_sha256: str
    random_weights: bool

    def encoder(self) -> DualEncoder:
        """Return the Encoder that runs both towers in torch, where their weights are."""
        return DualEncoder(
            name=self.name,
            image_tower=lambda pixels: _run(self.image_tower, pixels),
            text_tower=lambda ids: _run(self.text_tower, ids),
            image_spec=self.image_spec,
            tokenizer=self.tokenizer,
            logit_scale=self.logit_scale,
        )

    def save_preprocessing(self, folder: Path) -> None:
        """Write the tokenizer and `preprocessor_config.json` to `folder`; `from_folder` of both reads them back."""
        self.tokenizer.save(folder)
        content = (self.folder / "preprocessor_config.json").read_bytes()
        (folder / "preprocessor_config.json").write_bytes(content)


def load_clip(folder: Path, name: str, allow_pickle: bool, device: str) -> ClipModel:
    """Load the checkpoint in `folder`; see `vlmquant.models.load_model`."""
    target = _device(device)
    content = _read_config(folder)
    files = _weight_files(folder, allow_pickle)
    # The meta device skips drawing weights that are replaced at once.
    with torch.device("meta"):
        clip = CLIPModel(_parse_config(folder, content))
    _fill(clip, _read_weights(files), folder)
    clip = clip.eval().requires_grad_(False).to(target)
    tokenizer = Tokenizer.from_folder(folder)
    _check_tokenizer(tokenizer, clip.config.text_config)
    image_spec = ImageSpec.from_folder(folder)
    _check_image_size(image_spec, clip.config.vision_config.image_size)
    return ClipModel(
        name=Path(name).name or folder.resolve().name,
        folder=folder.resolve(),
        image_tower=ImageTower(clip),
        text_tower=TextTower(clip),
        image_spec=image_spec,
        tokenizer=tokenizer,
        logit_scale=float(clip.logit_scale.exp()),
        weights_sha256=_sha256(files),
        random_weights=bool(content.get(RANDOM_WEIGHTS_KEY, False)),
    )


def _run(tower: nn.Module, inputs: FloatArray | IdArray) -> FloatArray:
    with torch.inference_mode():
        target = next(tower.parameters()).device
        features = tower(torch.from_numpy(inputs).to(target))
    return np.asarray(features.cpu().numpy(), dtype=np.float32)


def _device(device: str) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise ModelError(f"device {device!r} cannot be used here; present: {', '.join(present)}") from error
    return target


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; expected a Hugging Face checkpoint folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}; copy it again from the checkpoint") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise ModelError(f"{path} names no model_type; expected a Hugging Face checkpoint folder of a CLIP")
    if content["model_type"] not in MODEL_TYPES:
        raise unknown(ModelError, "model_type", content["model_type"], MODEL_TYPES)
    return content


def _parse_config(folder: Path, content: Mapping[str, Any]) -> CLIPConfig:
    for part in ("text_config", "vision_config"):
        if not isinstance(content.get(part), dict):
            raise ModelError(f"{folder / 'config.json'} has no {part}; without it the model's size would be a guess")
    try:
        return CLIPConfig.from_dict(dict(content))
    except Exception as error:  # its validators raise types of their own
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder / 'config.json'} is not a CLIP configuration: {reason}") from error


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _indexed_files(folder, index)
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if pickles and not allow_pickle:
        raise ModelError(
            f"{folder} has its weights only as a pickle ({pickles[0].name}), which can run code when it is opened; use "
            "a safetensors checkpoint, or pass allow_pickle (--allow-pickle) if you trust where it came from"
        )
    if not pickles:
        raise ModelError(f"{folder} has no model.safetensors; expected a Hugging Face checkpoint folder with weights")
    return pickles


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is not an index of weight files; copy it again from the checkpoint") from error
    # A file of another kind or place must not slip past the ban on pickles.
    unsafe = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if unsafe:
        raise ModelError(f"{index} names {', '.join(unsafe)}; expected safetensors files in the same folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks the weight files {', '.join(missing)}, which its index names")
    return [folder / name for name in names]


def _read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Return all tensors of `files` as float32."""
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            if path.suffix == ".safetensors":
                state |= safetensors.torch.load_file(path)
            else:
                state |= torch.load(path, map_location="cpu", weights_only=True)
        except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, TypeError) as error:
            raise ModelError(f"{path} is damaged or truncated ({error}); download it again") from error
        except Exception as error:  # pickle.UnpicklingError and what weights_only raises for foreign objects
            raise ModelError(f"{path} holds more than tensors and was not opened: {error}") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _fill(clip: CLIPModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Put every tensor in its place; nothing may be missing, left over or of another shape."""
    # Older checkpoints store the position indices 0, 1, 2, ... as well.
    state = {name: tensor for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    expected = clip.state_dict()
    problems = {
        "lacks": sorted(expected.keys() - state.keys()),
        "has unknown": sorted(state.keys() - expected.keys()),
        "has a wrong shape for": sorted(
            f"{name} {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ),
        "holds infinite or undefined values in": sorted(
            name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
        ),
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ModelError(f"the checkpoint in {folder} {problem} tensors: {', '.join(names[:5])}{more}")
    clip.load_state_dict(state, assign=True)
    for embeddings in (clip.vision_model.embeddings, clip.text_model.embeddings):
        embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings).expand(1, -1)


def _check_tokenizer(tokenizer: Tokenizer, text_config: Any) -> None:
    if tokenizer.vocabulary_size > text_config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens and the model {text_config.vocab_size}; "
            "they are not of the same checkpoint"
        )
    pooled = text_config.eos_token_id
    if pooled == _GREATEST_ID_POOLING:
        pooled = tokenizer.vocabulary_size - 1
    if tokenizer.eos_id != pooled:
        raise ModelError(
            f"the tokenizer ends a text with token {tokenizer.eos_id} and the model looks for {pooled}; "
            "set eos_token_id in config.json's text_config to the tokenizer's"
        )


def _check_image_size(spec: ImageSpec, image_size: int) -> None:
    if (spec.crop_height, spec.crop_width) != (image_size, image_size):
        raise ModelError(
            f"preprocessor_config.json makes pictures of {spec.crop_height} x {spec.crop_width} and the model takes "
            f"{image_size} x {image_size}; they are not of the same checkpoint"
        )


def _sha256(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
