"""BLIP's configuration, and what a random checkpoint of it needs besides weights."""

import itertools
import string
from collections.abc import Mapping
from typing import Any

import torch

from vlmquant.checkpoints.blip import KINDS
from vlmquant.errors import ModelError, unknown
from vlmquant.models.blip_runner import BlipKind
from vlmquant.models.wordpiece import CLS, MASK, PAD, SEP, UNKNOWN, WordPieceTokenizer, bert_pipeline

_BERT_SPECIAL = {PAD: 0, UNKNOWN: 100, CLS: 101, SEP: 102, MASK: 103}
"""Where BERT's vocabulary has its special tokens; a smaller vocabulary has them first."""


def blip_config(
    kind: BlipKind,
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
        },
    }


def _transformer(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
    }


def special_ids(vocabulary: int) -> dict[str, int]:
    """Return where BERT's special tokens are: as in BERT, or first where the vocabulary is smaller than that."""
    if vocabulary > 1_000:
        return dict(_BERT_SPECIAL)
    return {token: index for index, token in enumerate(_BERT_SPECIAL)}


def random_blip(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a state drawn as transformers initializes BLIP, with one name for each tied tensor."""
    from transformers import BlipConfig

    name = config["architectures"][0]
    if name not in KINDS:
        raise unknown(ModelError, "architecture of a BLIP", name, KINDS)
    model = KINDS[name][1](BlipConfig.from_dict(dict(config)))
    tied = getattr(model, "_tied_weights_keys", None) or {}
    return {key: tensor for key, tensor in model.state_dict().items() if key not in tied}


def invented_wordpiece(vocabulary: int, context_length: int) -> WordPieceTokenizer:
    """Return a WordPiece tokenizer of exactly `vocabulary` (at least 111) tokens, laid out as BLIP's.

    Every letter and digit can stand alone or go on, so every lower-case English text can be written; the rest are
    pairs, triples and so on of letters in a fixed order. [DEC] and [ENC] are the last two.
    """
    characters = string.ascii_lowercase + string.digits
    special = special_ids(vocabulary)
    longer = ("".join(letters) for size in itertools.count(2) for letters in itertools.product(characters, repeat=size))
    singles = [*string.punctuation, *characters, *(f"##{character}" for character in characters)]
    wanted = vocabulary - len(special) - 2
    if wanted < len(singles):
        raise ModelError(f"a vocabulary must have at least {vocabulary - wanted + len(singles)} tokens: {vocabulary}")
    ordinary = itertools.chain(singles, longer)
    taken = {index: token for token, index in special.items()}
    vocab = {taken.get(index) or next(ordinary): index for index in range(vocabulary - 2)}
    vocab |= {"[DEC]": vocabulary - 2, "[ENC]": vocabulary - 1}
    return WordPieceTokenizer(bert_pipeline(vocab, extra_tokens=("[DEC]", "[ENC]")), max_length=context_length)


def blip_preprocessing(image_size: int) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of BLIP: squash to a square, CLIP's mean and deviation."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
    }


def _base(kind: BlipKind) -> dict[str, Any]:
    return blip_config(kind, image_size=384, patch_size=16, vision=(768, 12, 12), text=(768, 12, 12))


BLIP_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "BLIP-base-captioning": _base("captioning"),
    "BLIP-base-vqa": _base("vqa"),
    "BLIP-base-matching": _base("matching"),
}
