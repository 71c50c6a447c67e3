"""The pictures behind the numbers: what changed its answer, and what moved most."""

from collections.abc import Sequence

from vlmquant.report.page import Block, Details, Gallery, Picture, Text, Thumbnail
from vlmquant.report.scores import HEADLINES, metric_name
from vlmquant.tasks.compare import Comparison
from vlmquant.tasks.pictures import (
    MOST_FARTHEST,
    MOST_FLIPS,
    changed_answers,
    farthest_first,
    image_cosines,
    picture_of,
)
from vlmquant.tasks.runs import Run

KINDS = (
    ("losses", "right before, wrong after"),
    ("gains", "wrong before, right after"),
    ("changed_wrong", "wrong before, another wrong answer after"),
)


def flip_blocks(run: Run) -> list[Block]:
    """Show the flips of every headline metric with their pictures; the ones that got worse are open."""
    blocks: list[Block] = []
    for task, compared in run.comparisons.items():
        for comparison in compared:
            if comparison.metric not in HEADLINES:
                continue
            if isinstance(comparison, Comparison):
                blocks += _of_metric(run, task, comparison)
            elif comparison.metric in run.results[task].outcomes:
                blocks += _of_texts(run, task, comparison.metric)
    return blocks


def farthest_blocks(run: Run) -> list[Block]:
    """Show the pictures whose two embeddings are farthest apart."""
    if run.fidelity is None:
        return []
    shown = [(name, value) for name, value in run.fidelity["worst"][:MOST_FARTHEST] if name in run.pictures]
    thumbnails = [Thumbnail(_picture(run, name), name, (f"cosine {value:.5f}",)) for name, value in shown]
    return [Gallery(thumbnails)] if thumbnails else []


def _of_metric(run: Run, task: str, comparison: Comparison) -> list[Block]:
    name = f"{task} {metric_name(comparison.metric)}"
    counts = [len(getattr(comparison.flips, kind)) for kind, _ in KINDS]
    if not sum(counts):
        return [Text(f"{name}: no answer changed on {comparison.samples:,} samples.")]
    blocks: list[Block] = [
        Text(
            f"{name}: of {comparison.samples:,} samples {counts[0]:,} went from right to wrong, {counts[1]:,} from "
            f"wrong to right and {counts[2]:,} to another wrong answer."
        )
    ]
    for (kind, words), count in zip(KINDS, counts, strict=True):
        thumbnails = _thumbnails(run, task, comparison, getattr(comparison.flips, kind))
        if not thumbnails:
            continue
        shown = f"{len(thumbnails)} of {count:,}, the farthest first" if len(thumbnails) < count else f"all {count:,}"
        gallery = Gallery(thumbnails)
        title = f"{name}: {words} ({shown})"
        blocks += [Text(title), gallery] if kind == "losses" else [Details(title, [gallery])]
    return blocks


def _of_texts(run: Run, task: str, metric: str) -> list[Block]:
    """Show generated texts that changed, those that lost most by `metric` first."""
    after, before = run.results[task].outcomes[metric], run.reference_results[task].outcomes[metric]
    changed, name = changed_answers(after, before), f"{task} {metric_name(metric)}"
    blocks: list[Block] = [
        Text(f"{name}: {len(changed):,} of {len(after.ids):,} texts are not the same as the float model's.")
    ]
    shown = [one for one in changed if one.picture in run.pictures][:MOST_FLIPS]
    if shown:
        thumbnails = [
            Thumbnail(
                _picture(run, one.picture),
                one.sample,
                (
                    f"before: {one.before} ({100 * one.score_before:.1f})",
                    f"after: {one.after} ({100 * one.score_after:.1f})",
                ),
            )
            for one in shown
        ]
        blocks += [
            Text(f"{name}: changed texts ({len(shown)} of {len(changed):,}, the greatest losses first)"),
            Gallery(thumbnails),
        ]
    return blocks


def _thumbnails(run: Run, task: str, comparison: Comparison, samples: Sequence[str]) -> list[Thumbnail]:
    after, before = run.results[task].outcomes, run.reference_results[task].outcomes
    said_after = dict(zip(after[comparison.metric].ids, after[comparison.metric].answers, strict=True))
    said_before = dict(zip(before[comparison.metric].ids, before[comparison.metric].answers, strict=True))
    owner = picture_of(after[comparison.metric])
    fidelity = run.fidelity
    cosines = {} if fidelity is None else image_cosines(fidelity["ids"], fidelity["values"]["image_cosine"])
    chosen = [name for name in farthest_first(samples, owner, cosines) if owner[name] in run.pictures]
    return [
        Thumbnail(
            _picture(run, owner[name]),
            name,
            tuple(
                f"{when}: {'this picture' if said[name] == owner[name] else said[name]}"
                for when, said in (("before", said_before), ("after", said_after))
            ),
        )
        for name in chosen[:MOST_FLIPS]
    ]


def _picture(run: Run, name: str) -> Picture:
    return Picture(run.pictures[name].read_bytes(), alt=f"The picture {name}")
