from collections import Counter
from pathlib import Path

from streetworld.dataset import scenes
from streetworld.questions import IMAGE_NAME, questions, write_questions
from streetworld.scene import Actor, Scene
from vlmquant.data.coco import read_vqa


def test_every_question_has_an_annotation_with_ten_answers() -> None:
    asked, answered = questions(scenes(30))
    ids = [row["question_id"] for row in asked["questions"]]
    assert len(set(ids)) == len(ids) == 120
    assert ids == [row["question_id"] for row in answered["annotations"]]
    for row in answered["annotations"]:
        assert [answer["answer_id"] for answer in row["answers"]] == list(range(1, 11))
        assert {answer["answer_confidence"] for answer in row["answers"]} <= {"yes", "maybe", "no"}


def test_the_most_common_answer_is_the_true_one_and_annotators_disagree_a_little() -> None:
    _, answered = questions(scenes(60))
    shares = []
    for row in answered["annotations"]:
        (common, count), *_ = Counter(answer["answer"] for answer in row["answers"]).most_common()
        assert common == row["multiple_choice_answer"]
        shares.append(count / 10)
    assert 0.85 < sum(shares) / len(shares) < 1


def test_answers_follow_from_the_scene() -> None:
    dog = Actor(kind="dog", colour="brown", state="sitting", direction="left", x=0.2, ground=0.9)
    scene = Scene(time="dusk", weather="snow", road="straight", side="trees", actors=(dog,), seed=1)
    true = {
        "What is the weather like?": "snowy",
        "What time of day is it?": "dusk",
        "Is there a dog?": "yes",
        "Is there a bus?": "no",
        "How many dogs are there?": "1",
        "How many people are there?": "0",
        "How many buses are there?": "0",
        "What color is the dog?": "brown",
        "What is the dog doing?": "sitting",
        "Is the dog on the left or on the right?": "left",
        "Is the street empty?": "no",
        "Is it raining?": "no",
        "Is there a zebra crossing?": "no",
    }
    met = set()
    for seed in range(25):
        asked, answered = questions([scene], seed)
        for question, row in zip(asked["questions"], answered["annotations"], strict=True):
            if question["question"] in true:
                met.add(question["question"])
                assert row["multiple_choice_answer"] == true[question["question"]]
    assert met == set(true)


def test_equal_arguments_give_equal_questions() -> None:
    chosen = scenes(10)
    assert questions(chosen, 3) == questions(chosen, 3)
    assert questions(chosen, 3) != questions(chosen, 4)


def test_the_written_files_are_read_by_the_vqa_reader(tmp_path: Path) -> None:
    asked, answered, images = write_questions(tmp_path, 5)
    read = read_vqa(asked, answered, images, image_name=IMAGE_NAME)
    assert len(read.questions) == 20
    assert len(read.images) == 5
    assert not read.problems
