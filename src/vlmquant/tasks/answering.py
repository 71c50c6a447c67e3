"""Question answering: one answer per question, and the VQA accuracy of all of them."""

from collections.abc import Sequence

import numpy as np

from vlmquant.data.sets import QuestionedImages
from vlmquant.metrics.vqa import vqa_accuracy
from vlmquant.models.spec import Answerer
from vlmquant.progress import Track, silent
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.store import Journal
from vlmquant.tasks.task import Work

BATCH = 16
METRIC = "vqa_accuracy"


def write_answers(
    answerer: Answerer,
    data: QuestionedImages,
    *,
    journal: Journal | None = None,
    batch_size: int = BATCH,
    track: Track = silent,
) -> list[str]:
    """Return one answer per question of `data`; those that `journal` already holds are not asked again."""
    names = [str(question.id) for question in data.questions]
    done = {} if journal is None else {name: str(line["answer"]) for name, line in journal.read().items()}
    missing = [index for index, name in enumerate(names) if name not in done]
    starts = range(0, len(missing), batch_size)
    for start in track(starts, f"Answers, {answerer.name}", len(starts)):
        asked = [data.questions[index] for index in missing[start : start + batch_size]]
        pictures = {index: data.images[index] for index in {question.image_index for question in asked}}
        found = answerer.answer(
            [pictures[question.image_index] for question in asked], [question.text for question in asked]
        )
        fresh = {str(question.id): answer for question, answer in zip(asked, found, strict=True)}
        done |= fresh
        if journal is not None:
            journal.append({name: {"answer": answer} for name, answer in fresh.items()})
    return [done[name] for name in names]


def score_answers(
    model: str, answers: Sequence[str], data: QuestionedImages, *, rule: str = "official-2021"
) -> TaskResult:
    """Score answers by a rule of `metrics.vqa.RULES`; questions about one picture are one cluster.

    `details` holds the accuracy by type of answer and of question.
    """
    values = vqa_accuracy(answers, [question.answers for question in data.questions], rule)
    return TaskResult(
        model=model,
        protocol=Protocol(task="vqa", dataset=data.digest, samples=len(values), settings=(("rule", rule),)),
        outcomes={
            METRIC: Outcomes(
                ids=tuple(str(question.id) for question in data.questions),
                clusters=tuple(data.ids[question.image_index] for question in data.questions),
                values=values,
                answers=tuple(answers),
            )
        },
        details={
            "by_answer_type": _means(values, [question.answer_type for question in data.questions]),
            "by_question_type": _means(values, [question.question_type for question in data.questions]),
        },
    )


def answer_questions(work: Work) -> TaskResult:
    """Run the task: an answer to every question of the data, scored."""
    data, answerer = work.data, work.opened.generator
    assert isinstance(data, QuestionedImages)
    answers = write_answers(answerer, data, journal=work.journal("vqa"), track=work.track)
    return score_answers(answerer.name, answers, data)


def _means(values: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    named = np.array(kinds)
    return {kind: float(values[named == kind].mean()) for kind in sorted(set(kinds))}
