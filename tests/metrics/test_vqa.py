import json
from pathlib import Path
from typing import Any

import pytest

from vlmquant.errors import DataError
from vlmquant.metrics.vqa import RULES, normalise_answer, strip_punctuation, vqa_accuracy

GOLDEN_FILES = {"official-2021": "golden_accuracy.json", "legacy": "golden_accuracy_legacy_mcan.json"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
@pytest.mark.parametrize("rule", RULES)
def test_accuracy_of_so_many_matches_in_ten(rule: str, matches: int, accuracy: float) -> None:
    people = ["cat"] * matches + ["dog"] * (10 - matches)
    assert vqa_accuracy(["cat"], [people], rule) == pytest.approx([accuracy], abs=1e-15)


def test_rules_differ_where_all_agree() -> None:
    people = [["yes"] * 10]
    assert vqa_accuracy(["Yes"], people).tolist() == [0.0]
    assert vqa_accuracy(["Yes"], people, "legacy").tolist() == [1.0]


def test_rules_differ_where_people_write_words() -> None:
    people = [["Two dogs"] * 9 + ["cat"]]
    assert vqa_accuracy(["2 dogs"], people).tolist() == [1.0]
    assert vqa_accuracy(["2 dogs"], people, "legacy").tolist() == [0.0]


def test_only_the_official_rule_repairs_white_space() -> None:
    people = [["new\tyork "] * 9 + ["boston"]]
    assert vqa_accuracy(["new york"], people).tolist() == [1.0]
    assert vqa_accuracy(["new york"], people, "legacy").tolist() == [0.0]


def test_full_stops_beyond_the_thirty_second_stay() -> None:
    assert strip_punctuation("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("The red/blue car.", "red blue car"),
        ("1,000", "1000"),
        ("N/A", "n"),
        ("couldnt've", "couldn't've"),
        ("none", "0"),
        ("somebody'd", "somebodyd"),
    ],
)
def test_normalisation(raw: str, normalised: str) -> None:
    assert normalise_answer(raw) == normalised


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="unknown VQA accuracy rule 'strict'; known: legacy, official-2021"):
        vqa_accuracy(["a"], [["a"]], "strict")
    with pytest.raises(DataError, match="1 answers to 2 questions"):
        vqa_accuracy(["a"], [["a"], ["b"]])
    with pytest.raises(DataError, match="no answers by people"):
        vqa_accuracy(["a"], [[]])


@pytest.mark.parametrize("rule", RULES)
def test_every_known_value_is_equal(rule: str, shared_data: Path) -> None:
    folder = shared_data / "metrics/vqa"
    golden = read(folder / GOLDEN_FILES[rule])
    answers = {result["question_id"]: result["answer"] for result in read(folder / "synthetic_results.json")}
    questions = read(folder / "synthetic_annotations.json")["annotations"]
    people = [[person["answer"] for person in question["answers"]] for question in questions]
    values = vqa_accuracy([answers[question["question_id"]] for question in questions], people, rule)
    measured = {str(q["question_id"]): round(100 * float(v), 2) for q, v in zip(questions, values, strict=True)}
    assert measured == golden["evalQA"]
    assert len(measured) == 220
    assert round(100 * float(values.mean()), 2) == golden["accuracy"]["overall"]
    for key, group in (("question_type", "perQuestionType"), ("answer_type", "perAnswerType")):
        for name, expected in golden["accuracy"][group].items():
            members = [v for q, v in zip(questions, values, strict=True) if q[key] == name]
            assert round(100 * sum(members) / len(members), 2) == expected


def test_every_known_normalisation_is_equal(shared_data: Path) -> None:
    cases = read(shared_data / "metrics/vqa/golden_normalisation.json")
    flat = [case["raw"].replace("\n", " ").replace("\t", " ").strip() for case in cases]
    assert [strip_punctuation(answer) for answer in flat] == [case["after_punct"] for case in cases]
    assert [normalise_answer(case["raw"]) for case in cases] == [case["normalised"] for case in cases]
