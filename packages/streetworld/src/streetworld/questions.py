"""Questions about scenes with ten people's answers each, in the two files of VQA v2 (Goyal et al. 2017).

The true answer is computed from the scene. Every annotator gives it with a chance of 92 %, otherwise a plausible wrong
one, as people do; `multiple_choice_answer` is always the true answer.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from streetworld.dataset import PICTURE_SIZE, scenes
from streetworld.render import render
from streetworld.scene import COLOURS, KINDS, STATES, TIMES, WEATHERS, Scene
from vlmquant.files import write_whole
from vlmquant.progress import Track, silent

ANNOTATORS = 10
RIGHT_SHARE = 0.92
QUESTIONS_PER_SCENE = 4
IMAGE_NAME = "streetworld_{}.png"
"""Picture file name, `{}` being the twelve-digit image id, as the VQA v2 reader wants it."""

_DOING = {
    "person": "What is the person doing?", "car": "What is the car doing?", "bus": "What is the bus doing?",
    "truck": "What is the truck doing?", "dog": "What is the dog doing?",
}  # fmt: skip
_PLURAL = {"person": "people", "bus": "buses"}
_WEATHER_ANSWERS = {"clear": "clear", "rain": "rainy", "fog": "foggy", "snow": "snowy"}


@dataclass(frozen=True, kw_only=True)
class _Asked:
    text: str
    question_type: str
    answer_type: str
    answer: str
    others: tuple[str, ...]


def questions(chosen: Sequence[Scene], seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the questions and annotations dictionaries of VQA v2 about scenes; the image id is the scene's index.

    Every scene gets four different questions with unique ids; equal arguments give equal dictionaries.
    """
    asked_rows, answer_rows = [], []
    for image_id, scene in enumerate(chosen):
        rng = np.random.default_rng([seed, 41, image_id])
        possible = _possible(scene)
        for number, index in enumerate(rng.permutation(len(possible))[:QUESTIONS_PER_SCENE]):
            asked = possible[int(index)]
            ids = {"image_id": image_id, "question_id": image_id * 10 + number}
            asked_rows.append(ids | {"question": asked.text})
            answer_rows.append(
                ids
                | {
                    "question_type": asked.question_type,
                    "answer_type": asked.answer_type,
                    "multiple_choice_answer": asked.answer,
                    "answers": _answers(asked, rng),
                }
            )
    head = {"info": {"description": "street world"}, "license": {"name": "MIT"}, "data_type": "streetworld"}
    head |= {"data_subtype": "street"}
    return head | {"task_type": "Open-Ended", "questions": asked_rows}, head | {"annotations": answer_rows}


def write_questions(
    folder: str | Path, count: int = 500, *, split: str = "test", seed: int = 0, track: Track = silent
) -> tuple[Path, Path, Path]:
    """Write `count` pictures and the two files; return the paths (questions, annotations, folder of pictures)."""
    folder = Path(folder)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    chosen = scenes(count, split, seed + 3000)
    for index, scene in enumerate(track(chosen, "drawing street scenes", count)):
        PillowImage.fromarray(render(scene, PICTURE_SIZE)).save(images / IMAGE_NAME.format(f"{index:012d}"))
    paths = (folder / "questions.json", folder / "annotations.json")
    for path, content in zip(paths, questions(chosen, seed), strict=True):
        write_whole(path, json.dumps(content))
    return (*paths, images)


def _possible(scene: Scene) -> list[_Asked]:
    """Return every question that has one clear answer about the scene."""
    counts = Counter(actor.kind for actor in scene.actors)
    found = [
        _Asked(
            text="What is the weather like?", question_type="what is the", answer_type="other",
            answer=_WEATHER_ANSWERS[scene.weather], others=tuple(_WEATHER_ANSWERS[w] for w in WEATHERS),
        ),
        _Asked(
            text="What time of day is it?", question_type="what time", answer_type="other",
            answer=scene.time, others=TIMES,
        ),
        _yes_no("Is the street empty?", "is the", scene.empty),
        _yes_no("Is the street crowded?", "is the", scene.crowded),
        _yes_no("Is there a zebra crossing?", "is there a", scene.road == "crossing"),
        _yes_no("Is it raining?", "is it", scene.weather == "rain"),
    ]  # fmt: skip
    for kind in KINDS:
        plural = _PLURAL.get(kind, f"{kind}s")
        found.append(_yes_no(f"Is there a {kind}?", "is there a", counts[kind] > 0))
        number = counts[kind]
        near = tuple(str(n) for n in (number - 1, number + 1) if n >= 0)
        found.append(
            _Asked(
                text=f"How many {plural} are there?", question_type="how many", answer_type="number",
                answer=str(number), others=near,
            )
        )  # fmt: skip
        if number != 1:
            continue
        actor = next(actor for actor in scene.actors if actor.kind == kind)
        thing = "person's coat" if kind == "person" else kind
        found.append(
            _Asked(
                text=f"What color is the {thing}?", question_type="what color is the", answer_type="other",
                answer=actor.colour, others=COLOURS[kind],
            )
        )  # fmt: skip
        found.append(
            _Asked(
                text=f"Is the {kind} on the left or on the right?", question_type="is the", answer_type="other",
                answer="left" if actor.x < 0.5 else "right", others=("left", "right"),
            )
        )  # fmt: skip
        if kind in _DOING:
            found.append(
                _Asked(
                    text=_DOING[kind], question_type="what is the", answer_type="other",
                    answer=actor.state, others=STATES[kind],
                )
            )  # fmt: skip
    return found


def _yes_no(text: str, question_type: str, answer: bool) -> _Asked:
    return _Asked(
        text=text, question_type=question_type, answer_type="yes/no",
        answer="yes" if answer else "no", others=("yes", "no"),
    )  # fmt: skip


def _answers(asked: _Asked, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return ten answers, of which at least seven are right."""
    wrong = [other for other in asked.others if other != asked.answer]
    right = rng.random(ANNOTATORS) < RIGHT_SHARE
    right[rng.permutation(ANNOTATORS)[:7]] = True
    rows = []
    for number, agrees in enumerate(right.tolist(), start=1):
        answer = asked.answer if agrees else wrong[int(rng.integers(len(wrong)))]
        confidence = ("yes", "yes", "yes", "maybe")[int(rng.integers(4))] if agrees else "maybe"
        rows.append({"answer": answer, "answer_confidence": confidence, "answer_id": number})
    return rows
