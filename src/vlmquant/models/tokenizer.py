"""CLIP's byte-level BPE on the `tokenizers` library, read from a Hugging Face folder without transformers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from vlmquant.errors import ModelError
from vlmquant.files import write_whole
from vlmquant.models.spec import IdArray
from vlmquant.text import checked_text

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_NO_LIMIT = 100_000
"""Hugging Face writes 1e30 for a `model_max_length` that is not known."""


class Tokenizer:
    """Texts to token ids of at most `context_length`, each row `start ... end pad pad`.

    A longer text loses its tail and keeps the end token. `eos_id` and `pad_id` may be the same token.
    """

    def __init__(
        self, bpe: tokenizers.Tokenizer, *, context_length: int, eos_token: str = END, pad_token: str = END
    ) -> None:
        self.context_length = context_length
        self.eos_id = token_id(bpe, eos_token)
        self.pad_id = token_id(bpe, pad_token)
        self._tokens = {"eos_token": eos_token, "pad_token": pad_token}
        self._bpe = tokenizers.Tokenizer.from_str(bpe.to_str())
        self._bpe.no_padding()
        self._bpe.enable_truncation(context_length)

    @property
    def vocabulary_size(self) -> int:
        """One more than the greatest token id."""
        return 1 + max(self._bpe.get_vocab(with_added_tokens=True).values())

    def encode_batch(self, texts: Sequence[str]) -> IdArray:
        """Return (n, length) int64 token ids, padded to the longest row of the batch.

        Raises DataError for a text that is not UTF-8.
        """
        rows = [encoding.ids for encoding in self._bpe.encode_batch([checked_text(text) for text in texts])]
        ids = np.full((len(rows), max((len(row) for row in rows), default=0)), self.pad_id, dtype=np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        return ids

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json` (or `vocab.json` and `merges.txt`) in a checkpoint or bundle folder.

        The context length is `max_position_embeddings` of `config.json`'s text part, else `model_max_length` of
        `tokenizer_config.json`. Raises ModelError when one of these is missing or does not parse.
        """
        settings = read_json(folder / "tokenizer_config.json")
        return cls(
            _read_bpe(folder),
            context_length=context_length_of(folder, settings),
            eos_token=_content(settings.get("eos_token", END)),
            pad_token=_content(settings.get("pad_token", END)),
        )

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, from which `from_folder` and transformers can read."""
        plain = tokenizers.Tokenizer.from_str(self._bpe.to_str())
        plain.no_truncation()
        settings = {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": START,
            "unk_token": END,
            **self._tokens,
            "model_max_length": self.context_length,
        }
        write_whole(folder / "tokenizer.json", plain.to_str())
        write_whole(folder / "tokenizer_config.json", json.dumps(settings, indent=2))


def clip_bpe(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Build the pipeline of transformers' `CLIPTokenizer` around a vocabulary that holds `START` and `END`."""
    bpe = tokenizers.Tokenizer(
        BPE(
            vocab=dict(vocab),
            merges=list(merges),
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=END,
        )
    )
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([START, END])
    bpe.post_processor = processors.RobertaProcessing(
        (END, token_id(bpe, END)), (START, token_id(bpe, START)), trim_offsets=False, add_prefix_space=False
    )
    return bpe


def _read_bpe(folder: Path) -> tokenizers.Tokenizer:
    path, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer file: {error}; copy it again from the checkpoint") from error
    if vocab.is_file() and merges.is_file():
        lines = merges.read_text(encoding="utf-8").split("\n")
        pairs = [line.split(" ") for line in lines if line.count(" ") == 1 and not line.startswith("#version")]
        return clip_bpe(read_json(vocab), [(left, right) for left, right in pairs])
    raise ModelError(f"{folder} has no tokenizer.json (nor vocab.json and merges.txt); copy it from the checkpoint")


def context_length_of(folder: Path, settings: Mapping[str, Any]) -> int:
    """Return how many tokens a text may have, from `config.json` or `settings` (`tokenizer_config.json`)."""
    text = read_json(folder / "config.json").get("text_config") or {}
    length = text.get("max_position_embeddings") or settings.get("model_max_length")
    if not isinstance(length, int) or not 2 < length < _NO_LIMIT:
        raise ModelError(
            f"{folder} does not say how long a text may be; expected text_config.max_position_embeddings in "
            "config.json or model_max_length in tokenizer_config.json"
        )
    return length


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`; an absent file is an empty object, since each one is optional by itself."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}; copy it again from the checkpoint") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _content(token: Any) -> str:
    """Return the text of a token, which older files wrap in an object."""
    return str(token["content"] if isinstance(token, dict) else token)


def token_id(bpe: tokenizers.Tokenizer, token: str) -> int:
    """Return the id of `token`. Raises ModelError when the tokenizer has none."""
    identifier = bpe.token_to_id(token)
    if identifier is None:
        raise ModelError(f"the tokenizer has no token {token!r}, which its configuration names")
    return int(identifier)
