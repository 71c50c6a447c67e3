import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmquant.metrics.captions import METRICS, caption_scores, score_tokens

GOLDEN_NAMES = dict(zip(METRICS, ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"), strict=True))
Captions = tuple[dict[Any, str], dict[Any, list[str]], dict[str, Any]]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def karpathy_run(captions: Path, golden: Path) -> Captions:
    items = read(captions)
    return (
        {item["image_name"]: item["prediction"] for item in items},
        {item["image_name"]: item["captions"] for item in items},
        read(golden),
    )


def known_set(name: str, metrics: Path) -> Captions:
    if name == "magic_coco":
        return karpathy_run(metrics / name / "magic_result.json", metrics / name / "golden.json")
    if name == "zerocap100":
        folder = metrics / name
        return karpathy_run(folder / "ptq4clip_zerocap_100.json", folder / "golden_ptq4clip_zerocap_100.json")
    if name.startswith("clipscore"):
        folder, quality = metrics / "clipscore", name.removeprefix("clipscore-")
        return (
            read(folder / f"{quality}_captions.json"),
            read(folder / "refs.json"),
            read(folder / f"golden_{quality}.json"),
        )
    if name == "nlg_eval":
        texts, *references = (
            (metrics / name / f"{file}.txt").read_text(encoding="utf-8").splitlines()
            for file in ("hyp", "ref1", "ref2")
        )
        own = [list(pair) for pair in zip(*references, strict=True)]
        return dict(enumerate(texts)), dict(enumerate(own)), read(metrics / name / "golden.json")
    if name == "aac":
        with (metrics / name / "example_1.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        golden = read(metrics / name / "golden_example_1.json")
        return {i: row[0] for i, row in enumerate(rows)}, {i: row[1:] for i, row in enumerate(rows)}, golden
    folder = metrics / "synthetic_captions"
    return read(folder / "candidates.json"), read(folder / "references.json"), read(folder / "golden.json")


SETS = ["magic_coco", "zerocap100", "clipscore-good", "clipscore-bad", "nlg_eval", "aac", "synthetic_captions"]


@pytest.mark.parametrize("name", SETS)
def test_known_scores_end_to_end(name: str, shared_data: Path) -> None:
    candidates, references, golden = known_set(name, shared_data / "metrics")
    expected = [golden["corpus"][key] for key in GOLDEN_NAMES.values()]
    scores = caption_scores(candidates, references).corpus()
    assert list(scores.values()) == pytest.approx(expected, rel=0, abs=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_known_scores_on_given_tokens(name: str, shared_data: Path) -> None:
    _, _, golden = known_set(name, shared_data / "metrics")
    scores = score_tokens({i: own[0] for i, own in golden["tokenized_res"].items()}, golden["tokenized_gts"])
    expected = [golden["corpus"][key] for key in GOLDEN_NAMES.values()]
    assert list(scores.corpus().values()) == pytest.approx(expected, rel=0, abs=1e-6)
    items = golden["per_item"]
    assert [str(i) for i in items["id"]] == list(scores.ids)
    bleu = scores.bleu.per_item()
    for measured, key in (
        (bleu[:, 0], "Bleu_1"),
        (bleu[:, 3], "Bleu_4"),
        (scores.rouge_l, "ROUGE_L"),
        (scores.cider, "CIDEr"),
    ):
        assert np.abs(measured - np.array(items[key])).max() <= 1e-6


CANDIDATES = {"x": "A cat sits.", "y": "Two dogs run!", "z": "A man can't swim"}
REFERENCES = {"x": ["A cat is sitting."], "z": ["The man can't swim.", "a man"], "y": ["Two dogs run.", "Dogs."]}


def test_items_keep_the_order_of_the_captions() -> None:
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert scores.ids == ("x", "y", "z")
    # "ca n't" makes five words of "A man can't swim".
    assert scores.bleu.lengths.tolist() == [3, 3, 5]
    assert scores.rouge_l[1] == pytest.approx(1.0)


def test_weights_of_one_give_the_corpus_score() -> None:
    scores = caption_scores(CANDIDATES, REFERENCES)
    resampled = scores.resampled(np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]]))
    assert {name: value[0] for name, value in resampled.items()} == pytest.approx(scores.corpus(), abs=1e-15)
    assert resampled["CIDEr"][1] == pytest.approx(scores.cider[1])
    assert resampled["BLEU-2"][1] == pytest.approx(scores.bleu.per_item()[1, 1], abs=1e-8)


def test_weights_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\), got \(2,\)"):
        caption_scores(CANDIDATES, REFERENCES).resampled(np.ones(2))
