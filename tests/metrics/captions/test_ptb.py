import json
from pathlib import Path

import pytest

from vlmquant.metrics.captions.ptb import tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man rides a wave.", "a man rides a wave"),
        ("", ""),
        (" \t\n ", ""),
        ("...", ""),
        ("can't won't isn't they've", "ca n't wo n't is n't they 've"),
        ("a dog\u2019s \u201ctoy\u201d", "a dog 's toy"),
        ("cannot gonna Gotta", "can not gon na got ta"),
        ("cannot.", "can not"),
        ("gonna's", "gonna 's"),
        ("the boys' dog", "the boys dog"),
        ("(blue) [red] {x}", "-lrb- blue -rrb- -lsb- red -rsb- -lcb- x -rcb-"),
        ("stop! what?! no?", "stop what ?! no"),
        ("a T-shirt -- red - and blue", "a t-shirt red and blue"),
        ("U.S.A. T.V t.v. ex-U.S.", "u.s.a. t.v t.v. ex-u.s."),
        ("St. Mary vs. Mr. Smith etc.", "st. mary vs. mr. smith etc."),
        ("in Mass. there is mass.", "in mass. there is mass"),
        ("no. 5, no. thanks", "no. 5 no thanks"),
        ("plan B. Smith, plan B. The end", "plan b. smith plan b the end"),
        ("a dog., a cat", "a dog. a cat"),
        ("$5.50, 20% off 1,000 at 10:30am", "$ 5.50 20 % off 1,000 at 10:30 am"),
        ("5'10\" tall in the '70s", "5 10 tall in the '70s"),
        ("½ cup £5 5¢", "1/2 cup # 5 5 cents"),
        ("AT&T and m&m", "at&t and m & m"),
        ("see www.a.com, a@b.com or http://x.org/y.", "see www.a.com a@b.com or http://x.org/y"),
        ("end.The and/or a_b", "end.the and/or a_b"),
        ("rock 'n' roll, 'em o'clock O'Brien", "rock 'n' roll 'em o'clock o'brien"),
        ("1/2 1 1/2", "1/2 1\u00a01/2"),
        ("a cat \U0001f600 \u2665", "a cat \u2665"),
        ("&amp; a &lt; b", "& a < b"),
    ],
)
def test_tokens_are_those_of_the_java_tokenizer(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens


def test_the_shared_cases_are_equal(shared_data: Path) -> None:
    cases = json.loads((shared_data / "metrics/synthetic_captions/golden_ptb_cases.json").read_text(encoding="utf-8"))
    assert [tokenize(case["raw"]) for case in cases] == [case["ptb"] for case in cases]


def test_coco_captions_are_tokenized_as_by_java(shared_data: Path) -> None:
    folder = shared_data / "metrics/magic_coco"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    different = []
    total = 0
    for item in json.loads((folder / "magic_result.json").read_text(encoding="utf-8")):
        image = item["image_name"]
        expected = [*golden["tokenized_res"][image], *golden["tokenized_gts"][image]]
        texts = [item["prediction"], *item["captions"]]
        total += len(texts)
        different += [text for text, tokens in zip(texts, expected, strict=True) if tokenize(text) != tokens]
    assert total == 29_902
    # The Java program read the next caption, which begins with "A", as what follows the last letter.
    assert [text.strip() for text in different] == ["A group of people trying out the new Nintendo Wii U."]
