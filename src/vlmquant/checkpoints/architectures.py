"""The published CLIP and BLIP architectures, as the `config.json` of their checkpoints."""

from typing import Any

from vlmquant.checkpoints.blip.model import KINDS
from vlmquant.models.wordpiece import CLS, MASK, PAD, SEP, UNKNOWN
from vlmquant.models.writer import WriterKind

_BERT_SPECIAL = {PAD: 0, UNKNOWN: 100, CLS: 101, SEP: 102, MASK: 103}
"""Where BERT's vocabulary has its special tokens; a smaller vocabulary has them first."""


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
            **_transformer(*vision),
            "projection_dim": projection,
            "hidden_act": "quick_gelu",
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": context_length,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
            **_transformer(*text),
            "projection_dim": projection,
            "hidden_act": "quick_gelu",
        },
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


def blip_config(
    kind: WriterKind,
    *,
    image_size: int,
    patch_size: int,
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    vocabulary: int = 30_524,
    context_length: int = 512,
    initializer_range: float = 0.02,
) -> dict[str, Any]:
    """Return the `config.json` of a BLIP; `vision` and `text` are (width, layers, attention heads).

    The last two of `vocabulary` tokens are [DEC], with which the decoder starts, and [ENC].
    """
    architecture = next(name for name, (known, _) in KINDS.items() if known == kind)
    special = special_ids(vocabulary)
    return {
        "architectures": [architecture],
        "model_type": "blip",
        "projection_dim": 512,
        "image_text_hidden_size": 256,
        "initializer_range": initializer_range,
        "vision_config": {
            "model_type": "blip_vision_model",
            "image_size": image_size,
            "patch_size": patch_size,
            # The class's own default is 1e-10, under which no picture would differ from another.
            "initializer_range": initializer_range,
            **_transformer(*vision),
            "hidden_act": "gelu",
        },
        "text_config": {
            "model_type": "blip_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": context_length,
            "encoder_hidden_size": vision[0],
            "bos_token_id": vocabulary - 2,
            "eos_token_id": 2,
            "sep_token_id": special[SEP],
            "pad_token_id": special[PAD],
            "is_decoder": True,
            "initializer_range": initializer_range,
            **_transformer(*text),
            "hidden_act": "gelu",
        },
    }


def _transformer(width: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def special_ids(vocabulary: int) -> dict[str, int]:
    """Return where BERT's special tokens are: as in BERT, or first where the vocabulary is smaller than that."""
    if vocabulary > 1_000:
        return dict(_BERT_SPECIAL)
    return {token: index for index, token in enumerate(_BERT_SPECIAL)}


def _blip_base(kind: WriterKind) -> dict[str, Any]:
    return blip_config(kind, image_size=384, patch_size=16, vision=(768, 12, 12), text=(768, 12, 12))


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ViT-B-32": clip_config(image_size=224, patch_size=32, vision=(768, 12, 12), text=(512, 12, 8), projection=512),
    "ViT-B-16": clip_config(image_size=224, patch_size=16, vision=(768, 12, 12), text=(512, 12, 8), projection=512),
    "ViT-L-14": clip_config(image_size=224, patch_size=14, vision=(1024, 24, 16), text=(768, 12, 12), projection=768),
    "RN50": resnet_config(image_size=224, layers=(3, 4, 6, 3), width=64, text=(512, 12), projection=1024),
    "BLIP-base-captioning": _blip_base("captioning"),
    "BLIP-base-vqa": _blip_base("vqa"),
    "BLIP-base-matching": _blip_base("matching"),
}
