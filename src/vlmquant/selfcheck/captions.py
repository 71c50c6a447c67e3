"""Caption scores against coco-caption with the Java tokenizer: 120 captions, 464 references."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vlmquant.metrics.captions import CaptionScores, caption_scores, score_tokens
from vlmquant.metrics.captions.ptb import tokenize
from vlmquant.selfcheck.result import Check, all_equal, close, load_fixture

TOKENS_TOLERANCE = 1e-6
TEXT_TOLERANCE = 1e-4


def check_tokenizer() -> Iterator[Check]:
    """Compare tokens with Stanford's PTBTokenizer 3.4.1 on hard cases, HTML entities and every caption of the set."""
    fixture = load_fixture("captions")
    for name, cases in (("hard cases", fixture["tokenization"]), ("HTML entities", fixture["entities"])):
        measured = [tokenize(case["raw"]) for case in cases]
        yield all_equal(f"PTB tokenizer, {name}", measured, [case["ptb"] for case in cases])
    items = fixture["items"]
    texts = [text for item in items for text in (item["candidate"], *item["references"])]
    tokens = [text for item in items for text in (item["candidate_tokens"], *item["reference_tokens"])]
    yield all_equal("PTB tokenizer, captions", [tokenize(text) for text in texts], tokens)


def check_captions_from_tokens() -> Iterator[Check]:
    """Compare the scores of captions that coco-caption has tokenized, all together and one by one."""
    fixture = load_fixture("captions")
    items = fixture["items"]
    scores = score_tokens(
        {item["id"]: item["candidate_tokens"] for item in items},
        {item["id"]: item["reference_tokens"] for item in items},
    )
    yield from _corpus("from tokens", scores, fixture, TOKENS_TOLERANCE)
    bleu = scores.bleu.per_item()
    per_item = {"BLEU-1": bleu[:, 0], "BLEU-4": bleu[:, 3], "ROUGE-L": scores.rouge_l, "CIDEr": scores.cider}
    for name, values in per_item.items():
        expected = np.array([item["expected"][name] for item in items])
        worst = float(np.abs(values - expected).max())
        yield close(f"{name}, largest difference of one caption", worst, 0.0, TOKENS_TOLERANCE)


def check_captions_from_text() -> Iterator[Check]:
    """Compare the scores of captions as people wrote them, end to end."""
    fixture = load_fixture("captions")
    items = fixture["items"]
    scores = caption_scores(
        {item["id"]: item["candidate"] for item in items}, {item["id"]: item["references"] for item in items}
    )
    yield from _corpus("from text", scores, fixture, TEXT_TOLERANCE)


def _corpus(source: str, scores: CaptionScores, fixture: dict[str, Any], tolerance: float) -> Iterator[Check]:
    for name, measured in scores.corpus().items():
        yield close(f"{name}, {source}", measured, fixture["corpus"][name], tolerance)
