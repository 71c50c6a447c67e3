"""Captioning, question answering and matching as tasks: journals, scores and paired comparisons."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streetworld.questions import IMAGE_NAME, write_questions
from vlmquant.data.coco import read_vqa
from vlmquant.errors import DataError
from vlmquant.models.spec import FloatArray, Image
from vlmquant.tasks.answering import METRIC, score_answers, write_answers
from vlmquant.tasks.captioning import compare_captions, score_captions, token_agreement, write_captions
from vlmquant.tasks.compare import Verdict, compare
from vlmquant.tasks.matching import match_pairs, score_matching
from vlmquant.tasks.store import Journal

IMAGES = [np.full((2, 2, 3), shade, dtype=np.uint8) for shade in range(20)]
IDS = [f"p{i}" for i in range(20)]
REFERENCES = [
    [f"a {colour} {kind} on the road", f"one {colour} {kind} by day", f"the {kind} is {colour}"]
    for colour, kind in [("red", "bus"), ("blue", "car"), ("green", "truck"), ("white", "dog")] * 5
]
GOOD = [own[0] for own in REFERENCES]
WORSE = [text if i % 5 else "a person walking at night" for i, text in enumerate(GOOD)]


class Shades:
    """Says what it was asked about; dies after `lives` calls."""

    name = "shades"

    def __init__(self, lives: int = 1000) -> None:
        self.lives, self.seen = lives, 0

    def _live(self, count: int) -> None:
        if self.lives <= 0:
            raise KeyboardInterrupt
        self.lives -= 1
        self.seen += count

    def caption(self, images: Sequence[Image]) -> list[str]:
        self._live(len(images))
        return [GOOD[int(np.asarray(image)[0, 0, 0])] for image in images]

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        self._live(len(images))
        return ["yes" for _ in questions]

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        self._live(len(images))
        own = [GOOD[int(np.asarray(image)[0, 0, 0])] == text for image, text in zip(images, texts, strict=True)]
        return np.array(own, dtype=np.float32)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "captions.jsonl", "model on data")
    with pytest.raises(KeyboardInterrupt):
        write_captions(Shades(lives=2), IMAGES, IDS, journal=journal, batch_size=4)
    with journal.path.open("a") as file:
        file.write('{"id": "p9", "capt')  # torn off by the kill
    again = Shades()
    assert write_captions(again, IMAGES, IDS, journal=journal, batch_size=4) == GOOD
    assert again.seen == 12
    assert write_captions(Shades(lives=0), IMAGES, IDS, journal=journal) == GOOD


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    write_captions(Shades(), IMAGES[:1], IDS[:1], journal=Journal(tmp_path / "a.jsonl", "one"))
    with pytest.raises(DataError, match="another model, data or options"):
        write_captions(Shades(), IMAGES, IDS, journal=Journal(tmp_path / "a.jsonl", "two"))
    (tmp_path / "b.jsonl").write_text("no json\n")
    with pytest.raises(DataError, match="not a journal"):
        Journal(tmp_path / "b.jsonl", "one").read()


def test_equal_captions_have_no_difference_at_all() -> None:
    result = score_captions("a", GOOD, REFERENCES, ids=IDS, dataset="d")
    for change in compare_captions(result, result, max_drop_points=1.0):
        assert (change.difference.estimate, change.difference.low, change.difference.high) == (0, 0, 0)


def test_worse_captions_are_found_with_their_interval() -> None:
    before = score_captions("a", GOOD, REFERENCES, ids=IDS, dataset="d")
    after = score_captions("b", WORSE, REFERENCES, ids=IDS, dataset="d")
    changes = {change.metric: change for change in compare_captions(after, before, max_drop_points=1.0)}
    for metric in ("CIDEr", "BLEU-4", "ROUGE-L"):
        change = changes[metric]
        assert change.difference.low <= change.difference.estimate <= change.difference.high < 0
        assert change.verdict is Verdict.BEYOND
        assert change.candidate == pytest.approx(after.details["corpus"][metric])
        assert change.relative == pytest.approx(change.candidate / change.reference - 1)
    assert changes["equal captions"].candidate == pytest.approx(0.8)


def test_other_references_cannot_be_compared() -> None:
    before = score_captions("a", GOOD, REFERENCES, ids=IDS, dataset="d")
    other = score_captions("a", GOOD, [own[:2] for own in REFERENCES], ids=IDS, dataset="d")
    with pytest.raises(DataError, match="cannot be compared"):
        compare_captions(other, before)


def test_token_agreement_counts_missing_tokens() -> None:
    assert token_agreement([[1, 2, 3], [4]], [[1, 9, 3], [4, 5]]) == pytest.approx(3 / 5)
    assert token_agreement([[]], [[]]) == 1.0


def test_answers_are_scored_per_question_and_by_type(tmp_path: Path) -> None:
    questions, annotations, pictures = write_questions(tmp_path / "vqa", count=4)
    data = read_vqa(questions, annotations, pictures, image_name=IMAGE_NAME)
    journal = Journal(tmp_path / "answers.jsonl", "x")
    with pytest.raises(KeyboardInterrupt):
        write_answers(Shades(lives=1), data, journal=journal, batch_size=5)
    again = Shades()
    answers = write_answers(again, data, journal=journal, batch_size=5)
    assert again.seen == len(data.questions) - 5
    result = score_answers("yes man", answers, data)
    yes_no = [question.answer_type == "yes/no" for question in data.questions]
    assert 0 < result.outcomes[METRIC].mean <= np.mean(yes_no)
    assert result.details["by_answer_type"].get("other", 0.0) == 0.0
    assert compare(result, result)[0].difference.estimate == 0


def test_matching_tells_own_captions_from_swapped_ones(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "pairs.jsonl", "x")
    pairs = match_pairs(Shades(), IMAGES, REFERENCES, IDS, journal=journal)
    result = score_matching("shades", pairs, REFERENCES, ids=IDS, dataset="d")
    assert result.metrics == {"pair_accuracy": 1.0, "match_accuracy": 1.0}
    half = score_matching("coin", np.full((20, 2), 0.5, np.float32), REFERENCES, ids=IDS, dataset="d")
    assert half.metrics == {"pair_accuracy": 0.5, "match_accuracy": 0.5}
    with pytest.raises(DataError, match="at least two pictures"):
        match_pairs(Shades(), IMAGES[:1], REFERENCES[:1], IDS[:1])
