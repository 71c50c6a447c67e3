"""BERT's WordPiece, which BLIP reads and writes, on the `tokenizers` library and without transformers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from vlmquant.errors import DataError
from vlmquant.files import write_whole
from vlmquant.models.spec import read_json
from vlmquant.models.tokenizer import length_of, read_pipeline, token_id
from vlmquant.text import checked_text

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What transformers' clean-up closes up, in its order."""


class WordPieceTokenizer:
    """Texts to token ids `[CLS] ... [SEP]` and back; `max_length` counts these two.

    `cleans_up` closes the gaps before punctuation that a whole decoded text still has ("it ' s"), which transformers
    does where `tokenizer_config.json` says `clean_up_tokenization_spaces`.
    """

    def __init__(self, pipeline: tokenizers.Tokenizer, *, max_length: int, cleans_up: bool = False) -> None:
        self.max_length = max_length
        self.cleans_up = cleans_up
        self.cls_id, self.sep_id, self.pad_id = (token_id(pipeline, token) for token in (CLS, SEP, PAD))
        self._pipeline = tokenizers.Tokenizer.from_str(pipeline.to_str())
        self._pipeline.no_padding()
        self._pipeline.no_truncation()

    @property
    def vocabulary_size(self) -> int:
        """One more than the greatest token id."""
        return 1 + max(self._pipeline.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`.

        Raises DataError when it is empty, not UTF-8 or has more than `max_length` tokens.
        """
        ids: list[int] = self._pipeline.encode(checked_text(text)).ids
        if len(ids) <= 2:
            raise DataError(f"the text {text!r} holds no word; write a question or a prompt")
        if len(ids) > self.max_length:
            raise DataError(
                f"the text {text[:40] + '...'!r} has {len(ids):,} tokens and the model reads at most {self.max_length} "
                "(max_position_embeddings, with [CLS] and [SEP]); shorten it"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens; ids that no token has are left out, as [DEC] may be."""
        text: str = self._pipeline.decode(list(ids), skip_special_tokens=True)
        if self.cleans_up:
            for gap in _SPACED:
                text = text.replace(gap, gap.strip())
        return text

    @classmethod
    def from_folder(cls, folder: Path) -> "WordPieceTokenizer":
        """Read `tokenizer.json` and `tokenizer_config.json` in a bundle folder, as `save` wrote them.

        `checkpoints.processors` reads a checkpoint's. Raises ModelError when one is missing or does not parse.
        """
        settings = read_json(folder / "tokenizer_config.json")
        return cls(
            read_pipeline(folder),
            max_length=length_of(folder, settings),
            cleans_up=bool(settings.get("clean_up_tokenization_spaces", False)),
        )

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, from which `from_folder` and transformers can read."""
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": (json.loads(self._pipeline.to_str())["normalizer"] or {}).get("lowercase", False),
            "clean_up_tokenization_spaces": self.cleans_up,
            "cls_token": CLS,
            "sep_token": SEP,
            "pad_token": PAD,
            "unk_token": UNKNOWN,
            "mask_token": MASK,
            "model_max_length": self.max_length,
        }
        write_whole(folder / "tokenizer.json", self._pipeline.to_str())
        write_whole(folder / "tokenizer_config.json", json.dumps(settings, indent=2))


def bert_pipeline(
    vocab: Mapping[str, int], *, lowercase: bool = True, extra_tokens: Sequence[str] = ()
) -> tokenizers.Tokenizer:
    """Build the pipeline of transformers' `BertTokenizer` around a vocabulary that holds the five special tokens.

    `extra_tokens` (of `vocab`, such as BLIP's [DEC]) are special too, so that decoding leaves them out.
    """
    pipeline = tokenizers.Tokenizer(WordPiece(vocab=dict(vocab), unk_token=UNKNOWN))
    pipeline.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pipeline.decoder = decoders.WordPiece(prefix="##")
    pipeline.add_special_tokens([PAD, UNKNOWN, CLS, SEP, MASK, *extra_tokens])
    pipeline.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, token_id(pipeline, CLS)), (SEP, token_id(pipeline, SEP))],
    )
    return pipeline
