"""All tasks: a new one is a file of its own and a row here."""

from collections.abc import Mapping, Sequence

from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages, QuestionedImages
from vlmquant.errors import DataError, unknown
from vlmquant.models.spec import Head
from vlmquant.opening.named import a
from vlmquant.tasks.answering import answer_questions
from vlmquant.tasks.captioning import caption_pictures, compare_captionings
from vlmquant.tasks.classification import classify_pictures
from vlmquant.tasks.compare import compare_results
from vlmquant.tasks.fidelity import closeness, embed_all, too_few_to_compare
from vlmquant.tasks.linear_probe import probe_features, why_no_probe
from vlmquant.tasks.matching import match_captions, too_few_to_match
from vlmquant.tasks.result import CORPUS
from vlmquant.tasks.retrieval import retrieve_both_ways
from vlmquant.tasks.task import Task

TASKS: dict[str, Task] = {
    "zero-shot": Task(
        head="dual-encoder", run=classify_pictures, compare=compare_results, data=LabelledImages, needs="labels"
    ),
    "linear-probe": Task(
        head="dual-encoder",
        run=probe_features,
        compare=compare_results,
        data=LabelledImages,
        needs="labels",
        obstacle=why_no_probe,
        when_asked=True,
    ),
    "retrieval": Task(
        head="dual-encoder", run=retrieve_both_ways, compare=compare_results, data=CaptionedImages, needs="captions"
    ),
    "fidelity": Task(
        head="dual-encoder", run=embed_all, compare=closeness, obstacle=too_few_to_compare, with_reference=True
    ),
    "captioning": Task(
        head="captioner",
        run=caption_pictures,
        compare=compare_captionings,
        data=CaptionedImages,
        needs="captions",
        told=(CORPUS,),
    ),
    "vqa": Task(
        head="answerer",
        run=answer_questions,
        compare=compare_results,
        data=QuestionedImages,
        needs="questions",
        told=("by_answer_type", "by_question_type"),
    ),
    "matching": Task(
        head="matcher",
        run=match_captions,
        compare=compare_results,
        data=CaptionedImages,
        needs="captions",
        obstacle=too_few_to_match,
    ),
}


def tasks_of(head: Head) -> tuple[str, ...]:
    """Return the names of the tasks that a model with this head can do."""
    return tuple(name for name, task in TASKS.items() if task.head == head)


def tasks_in_words() -> str:
    """Return the names of all tasks by the head that can do them, such as "captioning of a captioner"."""
    heads = dict.fromkeys(task.head for task in TASKS.values())
    return "; ".join(f"{' or '.join(tasks_of(head))} of {a(head)}" for head in heads)


def choose_tasks(
    head: Head, data: ImageSet, wanted: Sequence[str] | None, *, has_reference: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the tasks to run with a model of `head` on `data`, and why others of the head are not possible.

    `wanted` None takes all that are possible but those that wait to be asked for. Raises DataError for an unknown task,
    for a wanted one that is of another head or not possible, and when there is nothing to do.
    """
    own = {name: TASKS[name] for name in tasks_of(head)}
    obstacles = {name: why for name, task in own.items() if (why := task.why_not(data)) is not None}
    for name in wanted or ():
        if name not in TASKS:
            raise unknown(DataError, "task", name, TASKS)
        if name not in own:
            raise DataError(
                f"task {name} takes {a(TASKS[name].head)}; this model is {a(head)}, which does {', '.join(own)}"
            )
        if name in obstacles:
            raise DataError(f"task {name} is not possible on {data.name}: {obstacles[name]}")
        if own[name].with_reference and not has_reference:
            raise DataError(f"{name} is closeness to a float model; add --against FLOAT_MODEL")
    chosen = tuple(
        name
        for name, task in own.items()
        if name not in obstacles and (has_reference if task.with_reference else _is_wanted(name, wanted))
    )
    if not chosen:
        raise DataError(_nothing_to_do(head, data, obstacles))
    waiting = [name for name, task in own.items() if task.when_asked and wanted is None and name not in obstacles]
    told = {name: f"it runs when it is asked for: --task {name}" for name in waiting}
    told |= {name: why for name, why in obstacles.items() if has_reference or not own[name].with_reference}
    return chosen, told


def _is_wanted(name: str, wanted: Sequence[str] | None) -> bool:
    return not TASKS[name].when_asked if wanted is None else name in wanted


def _nothing_to_do(head: Head, data: ImageSet, obstacles: Mapping[str, str]) -> str:
    reasons = ", ".join(f"{name}: {why}" for name, why in obstacles.items())
    if any(TASKS[name].with_reference for name in tasks_of(head)):
        return (
            f"without labels or captions {data.name} needs a float reference to compare with "
            f"(--against FLOAT_MODEL; {reasons})"
        )
    return f"this model is {a(head)}, which does {' or '.join(tasks_of(head))}; not possible on {data.name} ({reasons})"
