"""How a checkpoint's files say that pictures and texts become inputs: as the installed transformers reads them."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from transformers import AutoTokenizer, BlipConfig, CLIPConfig

from vlmquant.errors import ModelError
from vlmquant.models.image_config import BLIP, CLIP
from vlmquant.models.spec import PREPROCESSOR, ImageSpec, read_json
from vlmquant.models.tokenizer import Tokenizer, check_ids
from vlmquant.models.wordpiece import WordPieceTokenizer

PROCESSOR = "processor_config.json"
"""Where transformers 5 saves image settings, inside; older releases have them in a file of their own."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
_LONG = "a photo of a dog " * 200


def clip_images(folder: Path, image_size: int) -> ImageSpec:
    """Return how a CLIP's pictures are prepared. Raises ModelError when they do not get the model's size."""
    return _image_spec(folder, CLIP, image_size)


def blip_images(folder: Path, image_size: int) -> ImageSpec:
    """Return how a BLIP's pictures are prepared. Raises ModelError when they do not get the model's size."""
    return _image_spec(folder, BLIP, image_size)


def clip_tokenizer(folder: Path, positions: int, vocabulary: int) -> Tokenizer:
    """Return the tokenizer of a CLIP that reads `positions` tokens and knows `vocabulary` of them.

    A text is cut where transformers' tokenizer cuts it, and nothing is padded but with tokens after its end. Raises
    ModelError for a tokenizer whose rows the model would misread.
    """
    read = _tokenizer(folder, CLIPConfig(), positions, vocabulary)
    if read.eos_token is None:
        raise ModelError(f"the tokenizer in {folder} has no eos_token; a CLIP pools a text at its end token")
    tokenizer = Tokenizer(
        tokenizers.Tokenizer.from_str(read.backend_tokenizer.to_str()),
        context_length=int(min(positions, read.model_max_length)),
        eos_token=str(read.eos_token),
        # Without one, transformers pads nothing; no row changes by what follows its end.
        pad_token=str(read.pad_token or read.eos_token),
    )
    for text in ("a photo", _LONG):
        (row,) = tokenizer.encode_batch([text]).tolist()
        if row[-1:] != [tokenizer.eos_id] or tokenizer.eos_id in row[:-1]:
            raise ModelError(
                f"the tokenizer in {folder} gives {text[:20]!r} the ids {row[:4]} ... {row[-2:]}; expected the end "
                f"token {tokenizer.eos_id} ({read.eos_token}) at the end and nowhere else: the model pools there"
            )
    return tokenizer


def wordpiece_tokenizer(folder: Path, positions: int, vocabulary: int) -> WordPieceTokenizer:
    """Return the tokenizer of a BLIP that reads `positions` tokens and knows `vocabulary`. Raises ModelError."""
    read = _tokenizer(folder, BlipConfig(), positions, vocabulary)
    return WordPieceTokenizer(
        tokenizers.Tokenizer.from_str(read.backend_tokenizer.to_str()),
        max_length=int(min(positions, read.model_max_length)),
        cleans_up=bool(read.clean_up_tokenization_spaces),
    )


def _image_spec(folder: Path, processor: str, image_size: int) -> ImageSpec:
    nested = read_json(folder / PROCESSOR).get("image_processor")
    source = f"{folder / PROCESSOR} (image_processor)" if nested is not None else str(folder / PREPROCESSOR)
    if nested is None and not (folder / PREPROCESSOR).is_file():
        raise ModelError(f"{folder} has no {PREPROCESSOR} (nor {PROCESSOR}); copy it from the checkpoint's page")
    config = read_json(folder / PREPROCESSOR) if nested is None else nested
    if not isinstance(config, dict):
        raise ModelError(f"{source} is a {type(config).__name__}, expected a JSON object")
    spec = ImageSpec.from_config(config, source=source, processor=processor)
    if (spec.crop_height, spec.crop_width) != (image_size, image_size):
        raise ModelError(
            f"{source} gives pictures of {spec.crop_height} x {spec.crop_width} (size, crop_size) and the model takes "
            f"{image_size} x {image_size}; they are from different checkpoints"
        )
    return spec


def _tokenizer(folder: Path, config: Any, positions: int, vocabulary: int) -> Any:
    """Return what transformers makes of the tokenizer files of `folder`; `config` says of which kind without a word.

    Raises ModelError where there are none, or they do not fit a model of `positions` and `vocabulary`.
    """
    present = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        raise ModelError(f"{folder} has no tokenizer.json (nor vocab.json or vocab.txt); copy it from the checkpoint")
    settings = read_json(folder / "tokenizer_config.json")
    for name in ("padding_side", "truncation_side"):
        if settings.get(name) not in (None, "right"):
            raise ModelError(f"{folder / 'tokenizer_config.json'} has {name} = {settings[name]!r}, expected 'right'")
    length = settings.get("model_max_length")
    if length is not None and (not isinstance(length, int | float) or isinstance(length, bool) or length <= 2):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'} has model_max_length = {length!r}, expected a number above 2"
        )
    if "tokenizer.json" in present:
        check_ids(folder / "tokenizer.json")
    for name in ("vocab.json", "added_tokens.json"):
        _check_vocabulary(folder / name, read_json(folder / name), vocabulary)
    try:
        read = AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and the tokenizers library raise many kinds
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder / present[0]} is not a tokenizer file: {reason}; copy it again") from error
    if getattr(read, "backend_tokenizer", None) is None:
        raise ModelError(
            f"the tokenizer in {folder} is a {type(read).__name__}, expected one of the tokenizers library"
        )
    used = read.backend_tokenizer.get_vocab(with_added_tokens=True)
    _check_vocabulary(folder / present[0], used, vocabulary)
    return read


def _check_vocabulary(path: Path, ids: Any, vocabulary: int) -> None:
    """Raise ModelError where a token of `path` has an id that the model has no row for."""
    beyond = {token: index for token, index in ids.items() if not isinstance(index, int) or index >= vocabulary}
    if beyond:
        token, index = next(iter(beyond.items()))
        raise ModelError(
            f"{path} gives {token!r} the id {json.dumps(index)} and the model has {vocabulary} tokens; "
            "they are from different checkpoints"
        )
