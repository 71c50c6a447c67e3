"""Checkpoints with random weights: speed and size do not depend on what the weights are."""

import itertools
import json
import os
import shutil
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BlipConfig, CLIPConfig, CLIPModel

from vlmquant.checkpoints.architectures import ARCHITECTURES, special_ids
from vlmquant.checkpoints.blip.model import KINDS
from vlmquant.checkpoints.checkpoint import RANDOM_WEIGHTS_KEY
from vlmquant.checkpoints.clip.openai_names import random_state
from vlmquant.errors import ModelError, unknown
from vlmquant.models.spec import PREPROCESSOR
from vlmquant.models.tokenizer import END, START, Tokenizer, clip_bpe
from vlmquant.models.wordpiece import WordPieceTokenizer, bert_pipeline

LOGIT_SCALE_LOG = 4.6052
"""ln 100, where OpenAI's training clipped it and ended."""
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's CLIP; BLIP took them over."""


def random_checkpoint(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Write a full-size checkpoint of `architecture` with random weights to `folder`, which must not exist.

    The tokenizer is of the model's kind and size with invented tokens. Raises ModelError.
    """
    if architecture not in ARCHITECTURES:
        raise unknown(ModelError, "architecture", architecture, ARCHITECTURES)
    return write_random_checkpoint(ARCHITECTURES[architecture], folder, seed)


def write_random_checkpoint(config: Mapping[str, Any], folder: Path, seed: int) -> Path:
    """Write a folder for `config` (see `architectures`) with random weights.

    The same seed gives the same bytes, and the global random state is left alone. The folder appears whole or not at
    all. Raises ModelError when it exists or the `model_type` is none of `INVENTED`.
    """
    if config["model_type"] not in INVENTED:
        raise unknown(ModelError, "model_type", config["model_type"], INVENTED)
    family = INVENTED[config["model_type"]]
    if folder.exists():
        raise ModelError(f"{str(folder)!r} exists; choose another folder for the random checkpoint")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = family.state(config)
        safetensors.torch.save_file(state, temporary / "model.safetensors", {"format": "pt"})
        _write_json(temporary / "config.json", {**config, RANDOM_WEIGHTS_KEY: True})
        preprocessing = family.preprocessing(config["vision_config"]["image_size"])
        _write_json(temporary / PREPROCESSOR, {**preprocessing, "image_mean": _MEAN, "image_std": _STD})
        text = config["text_config"]
        family.tokenizer(text["vocab_size"], text["max_position_embeddings"]).save(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _random_clip(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a state drawn as transformers initializes CLIP."""
    state = dict(CLIPModel(CLIPConfig.from_dict(dict(config))).state_dict())
    return {**state, "logit_scale": torch.tensor(LOGIT_SCALE_LOG)}


def _random_resnet(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {**random_state(config), "logit_scale": torch.tensor(LOGIT_SCALE_LOG)}


def _random_blip(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a state drawn as transformers initializes BLIP, with one name for each tied tensor."""
    name = config["architectures"][0]
    if name not in KINDS:
        raise unknown(ModelError, "architecture of a BLIP", name, KINDS)
    model = KINDS[name][1](BlipConfig.from_dict(dict(config)))
    tied = getattr(model, "_tied_weights_keys", None) or {}
    return {key: tensor for key, tensor in model.state_dict().items() if key not in tied}


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


def _clip_preprocessing(image_size: int) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of CLIP, but for mean and deviation: shrink and cut out the middle."""
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


def _blip_preprocessing(image_size: int) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of BLIP, but for mean and deviation: squash to a square."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
    }


@dataclass(frozen=True)
class Invented:
    """What a checkpoint of one `model_type` holds when nobody trained it.

    `state` draws the weights for a configuration, `tokenizer` takes a vocabulary and a longest text in tokens,
    `preprocessing` a picture size.
    """

    state: Callable[[Mapping[str, Any]], dict[str, torch.Tensor]]
    tokenizer: Callable[[int, int], Tokenizer | WordPieceTokenizer]
    preprocessing: Callable[[int], dict[str, Any]]


INVENTED = {
    "clip": Invented(_random_clip, invented_tokenizer, _clip_preprocessing),
    "clip-resnet": Invented(_random_resnet, invented_tokenizer, _clip_preprocessing),
    "blip": Invented(_random_blip, invented_wordpiece, _blip_preprocessing),
}
"""By the `model_type` of `config.json`, as `families.FAMILIES`."""
