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
from vlmquant.models.spec import IdArray, read_json
from vlmquant.text import checked_text

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
MAX_VOCABULARY = 1_000_000
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
        """Read `tokenizer.json` and `tokenizer_config.json` in a bundle folder, as `save` wrote them.

        `checkpoints.processors` reads a checkpoint's. Raises ModelError when one is missing or does not parse.
        """
        settings = read_json(folder / "tokenizer_config.json")
        end = _content(settings.get("eos_token") or END)
        return cls(
            read_pipeline(folder),
            context_length=length_of(folder, settings),
            eos_token=end,
            pad_token=_content(settings.get("pad_token") or end),
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


def read_pipeline(folder: Path) -> tokenizers.Tokenizer:
    """Read the `tokenizer.json` of `folder`. Raises ModelError when it is missing, broken or unsafe to open."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json; copy it from the checkpoint")
    check_ids(path)
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{path} is not a tokenizer file: {error}; copy it again from the checkpoint") from error


def check_ids(path: Path) -> None:
    """Raise ModelError when a token of the `tokenizer.json` at `path` has an id that no vocabulary reaches.

    The tokenizers library reserves memory for every id up to the greatest, and ends the process where it gets none.
    """
    content = read_json(path)
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.items()) if isinstance(vocab, dict) else []
    added = content.get("added_tokens")
    ids += [(token.get("content"), token.get("id")) for token in added or () if isinstance(token, dict)]
    for token, index in ids:
        if not isinstance(index, int) or not 0 <= index < MAX_VOCABULARY:
            raise ModelError(
                f"{path} gives the token {token!r} the id {index!r}, expected a whole number below {MAX_VOCABULARY:,}"
            )


def length_of(folder: Path, settings: Mapping[str, Any]) -> int:
    """Return the `model_max_length` of `settings` (`tokenizer_config.json`): how many tokens a text may have."""
    length = settings.get("model_max_length")
    if not isinstance(length, int) or not 2 < length < _NO_LIMIT:
        raise ModelError(
            f"{folder / 'tokenizer_config.json'} does not say how long a text may be; expected model_max_length, got "
            f"{length!r}"
        )
    return length


def _content(token: Any) -> str:
    """Return the text of a token, which older files wrap in an object."""
    return str(token["content"] if isinstance(token, dict) else token)


def token_id(bpe: tokenizers.Tokenizer, token: str) -> int:
    """Return the id of `token`. Raises ModelError when the tokenizer has none."""
    identifier = bpe.token_to_id(token)
    if identifier is None:
        raise ModelError(f"the tokenizer has no token {token!r}, which its configuration names")
    return int(identifier)
