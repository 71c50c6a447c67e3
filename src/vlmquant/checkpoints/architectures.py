"""The published CLIP and BLIP architectures with random weights: speed and size do not depend on what they are."""

import itertools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel

from vlmquant.checkpoints.blip_architectures import (
    BLIP_ARCHITECTURES,
    blip_preprocessing,
    invented_wordpiece,
    random_blip,
)
from vlmquant.checkpoints.checkpoint import RANDOM_WEIGHTS_KEY
from vlmquant.checkpoints.openai_names import random_state
from vlmquant.errors import ModelError, unknown
from vlmquant.models.spec import PREPROCESSOR
from vlmquant.models.tokenizer import END, START, Tokenizer, clip_bpe

LOGIT_SCALE_LOG = 4.6052
"""ln 100, where OpenAI's training clipped it and ended."""
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip_config(
    *,
    image_size: int,
    patch_size: int,
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    projection: int,
    vocabulary: int = 49_408,
    context_length: int = 77,
) -> dict[str, Any]:
    """Return the `config.json` of a CLIP; `vision` and `text` are (width, layers, attention heads)."""
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": projection,
        "logit_scale_init_value": 2.6592,
        "initializer_factor": 1.0,
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": image_size,
            "patch_size": patch_size,
            **_transformer(*vision, projection),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": context_length,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
            **_transformer(*text, projection),
        },
    }


def _transformer(width: int, layers: int, heads: int, projection: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": projection,
        "hidden_act": "quick_gelu",
    }


def resnet_config(
    *,
    image_size: int,
    layers: tuple[int, ...],
    width: int,
    text: tuple[int, int],
    projection: int,
    vocabulary: int = 49_408,
    context_length: int = 77,
) -> dict[str, Any]:
    """Return the `config.json` of a CLIP-ResNet; `text` is (width, layers), a head is 64 wide.

    `load_model` reads every size off the weights instead; the sizes are here for `write_random_checkpoint`.
    """
    return {
        "model_type": "clip-resnet",
        "hidden_act": "quick_gelu",
        "vision_config": {"image_size": image_size, "layers": list(layers), "width": width, "features": projection},
        "text_config": {
            "vocab_size": vocabulary,
            "max_position_embeddings": context_length,
            "hidden_size": text[0],
            "num_hidden_layers": text[1],
            "projection_dim": projection,
        },
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ViT-B-32": clip_config(image_size=224, patch_size=32, vision=(768, 12, 12), text=(512, 12, 8), projection=512),
    "ViT-B-16": clip_config(image_size=224, patch_size=16, vision=(768, 12, 12), text=(512, 12, 8), projection=512),
    "ViT-L-14": clip_config(image_size=224, patch_size=14, vision=(1024, 24, 16), text=(768, 12, 12), projection=768),
    "RN50": resnet_config(image_size=224, layers=(3, 4, 6, 3), width=64, text=(512, 12), projection=1024),
    **BLIP_ARCHITECTURES,
}


def random_checkpoint(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Write a full-size checkpoint of `architecture` with random weights to `folder`, which must not exist.

    The tokenizer is of the model's kind and size with invented tokens. Raises ModelError.
    """
    if architecture not in ARCHITECTURES:
        raise unknown(ModelError, "architecture", architecture, ARCHITECTURES)
    return write_random_checkpoint(ARCHITECTURES[architecture], folder, seed)


def write_random_checkpoint(config: Mapping[str, Any], folder: Path, seed: int) -> Path:
    """Write a folder for `config` (see `clip_config`, `resnet_config`, `blip_config`) with random weights.

    The same seed gives the same bytes, and the global random state is left alone. The folder appears whole or not at
    all. Raises ModelError when it exists.
    """
    if folder.exists():
        raise ModelError(f"{str(folder)!r} exists; choose another folder for the random checkpoint")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = _RANDOM_STATES[config["model_type"]](config)
        safetensors.torch.save_file(state, temporary / "model.safetensors", {"format": "pt"})
        _write_json(temporary / "config.json", {**config, RANDOM_WEIGHTS_KEY: True})
        blip, text = config["model_type"] == "blip", config["text_config"]
        preprocessing = (blip_preprocessing if blip else _preprocessing)(config["vision_config"]["image_size"])
        _write_json(temporary / PREPROCESSOR, {**preprocessing, "image_mean": _MEAN, "image_std": _STD})
        invented = invented_wordpiece if blip else invented_tokenizer
        invented(text["vocab_size"], text["max_position_embeddings"]).save(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _random_clip(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a state drawn as transformers initializes CLIP."""
    state = dict(CLIPModel(CLIPConfig.from_dict(dict(config))).state_dict())
    return {**state, "logit_scale": torch.tensor(LOGIT_SCALE_LOG)}


def _random_resnet(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {**random_state(config), "logit_scale": torch.tensor(LOGIT_SCALE_LOG)}


_RANDOM_STATES = {"clip": _random_clip, "clip-resnet": _random_resnet, "blip": random_blip}


def invented_tokenizer(vocabulary: int, context_length: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer of exactly `vocabulary` (at least 514) tokens, laid out as CLIP's.

    That is: 256 bytes, the same ending a word, merges, start, end. The merges are pairs of bytes in a fixed order.
    """
    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [f"{letter}</w>" for letter in letters]
    count = vocabulary - len(pieces) - 2
    if not 0 <= count <= len(letters) * len(pieces):
        raise ModelError(f"a vocabulary must have 514 to {514 + len(letters) * len(pieces)} tokens, got {vocabulary}")
    merges = list(itertools.islice(itertools.product(letters, pieces), count))
    tokens = [*pieces, *(left + right for left, right in merges), START, END]
    return Tokenizer(
        clip_bpe({token: index for index, token in enumerate(tokens)}, merges), context_length=context_length
    )


def _preprocessing(image_size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
