"""The pictures of a run: matrices and distributions before and after quantization."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vlmquant.metrics.distances import wasserstein_1
from vlmquant.report.distributions import Sample, histogram, overlaid
from vlmquant.report.evaluation_tables import drop_constant_columns
from vlmquant.report.flips import farthest_blocks
from vlmquant.report.matrices import Matrix, difference, side_by_side
from vlmquant.report.page import Block, Details, Picture, Table
from vlmquant.report.plots import png
from vlmquant.tasks.runs import Run
from vlmquant.tasks.similarity import Similarity

MOST_CLASSES = 40
MEASURES = {
    "image_cosine": "cosine of each picture's two embeddings",
    "text_cosine": "cosine of each text's two embeddings",
    "rank_agreement": "rank agreement (Spearman's rho)",
    "neighbour_overlap": "overlap of the 10 nearest neighbours",
    "kl": "KL divergence (nats; smaller is closer)",
    "top1_agreement": "share of the same first answer",
}


def fidelity_blocks(runs: Sequence[Run], absent: list[str]) -> list[Block]:
    """The measures of closeness as a table."""
    blocks: list[Block] = []
    rows = []
    for run in runs:
        if not run.embeds:
            continue
        if run.fidelity is None:
            absent.append(f"Closeness of {run.model.name} on {run.data_name}: it was not compared with a float model.")
            continue
        for name, measure in run.fidelity["measures"].items():
            mean = measure["mean"]
            rows.append(
                (
                    MEASURES[name],
                    run.data_name,
                    run.model.name,
                    f"{mean['estimate']:.5f}",
                    f"{mean['low']:.5f} to {mean['high']:.5f}",
                    f"{measure['percentile_1']:.5f}",
                    f"{measure['worst']:.5f}",
                )
            )
    if rows:
        columns = ("Measure", "Data", "Model", "Mean", "95 % interval", "Worst 1 %", "Worst")
        caption = "No labels are needed for these; 1 is perfect, except for the KL divergence, where 0 is."
        blocks.append(drop_constant_columns(Table(columns=columns, rows=rows, caption=caption), ("Data", "Model")))
    return blocks


def closeness_blocks(run: Run) -> list[Block]:
    """The distribution of the pictures' cosines to float, and the pictures that moved most."""
    if run.fidelity is None:
        return []
    cosines = np.array(run.fidelity["values"]["image_cosine"], dtype=np.float64)
    figure = histogram(Sample(label=f"{run.model.name} on {run.data_name}", values=cosines), "cosine to float")
    words = f"Histogram of the cosine of {len(cosines):,} pictures to the float model"
    return [Picture(png(figure), alt=words), *farthest_blocks(run)]


def distribution_blocks(runs: Sequence[Run], absent: list[str]) -> list[Block]:
    """Distributions of cosines between pictures and texts, float and all quantized models of one data set together."""
    blocks: list[Block] = []
    for together in _by_data(runs):
        first = together[0][1]
        panels = []
        for title, part in (("pictures with their own text", "matched"), ("pairs that do not match", "unmatched")):
            samples = [Sample(label="float", values=_values(first, part, "reference"))]
            for run, similarity in together:
                samples.append(Sample(label=run.model.name, values=_values(similarity, part, "candidate")))
            if all(len(sample.values) for sample in samples):
                panels.append((title, samples))
        if panels:
            name = together[0][0].data_name
            moved = [
                f"{run.model.name} {wasserstein_1(samples[0].values, sample.values):.5f} ({title})"
                for title, samples in panels
                for (run, _), sample in zip(together, samples[1:], strict=True)
            ]
            blocks.append(
                Picture(
                    png(overlaid(panels, "cosine similarity")),
                    alt=f"Distributions of cosine similarities on {name}, float and quantized",
                    caption=f"{name}. Distance: Wasserstein-1, how far a cosine moves on average between the two "
                    f"distributions: {'; '.join(moved)}.",
                )
            )
    if not blocks:
        absent.append("Distributions of similarities: no run was compared with a float model.")
    return blocks


def matrix_blocks(run: Run, absent: list[str]) -> list[Block]:
    """Similarities and confusions of one run, float beside quantized, and what changed between them."""
    blocks: list[Block] = []
    if run.similarity is not None:
        blocks += _similarity_pictures(run, run.similarity)
    for task, result in run.results.items():
        counts, classes = result.details.get("confusion"), result.details.get("classes")
        if counts is None or classes is None:
            continue
        if len(classes) > MOST_CLASSES:
            absent.append(f"Confusion of {task} on {run.data_name}: {len(classes)} classes do not fit a picture.")
            continue
        blocks += _confusion_pictures(run, task, np.array(counts, dtype=np.float64), tuple(classes))
    return blocks


def _similarity_pictures(run: Run, similarity: Similarity) -> list[Block]:
    rows = tuple(PurePath(name).with_suffix("").as_posix() for name in similarity.rows)
    columns = tuple(similarity.columns)
    before, after = similarity.reference.astype(np.float64), similarity.candidate.astype(np.float64)
    shape = f"{len(rows)} pictures of {run.images:,} x {len(columns)} {similarity.columns_are}"
    names = {"rows_are": "pictures", "columns_are": similarity.columns_are, "n": shape}
    both = side_by_side(
        [
            Matrix(title="float", values=before, rows=rows, columns=columns),
            Matrix(title=run.model.name, values=after, rows=rows, columns=columns),
        ],
        "cosine similarity",
        **names,
    )
    change = difference(
        Matrix(title=f"{run.model.name} minus float", values=after - before, rows=rows, columns=columns),
        "difference of the cosines",
        **names,
    )
    return [
        Picture(
            png(both),
            alt=f"Similarity of {shape}, float and quantized",
            caption=f"The same pairs by both models on {run.data_name}.",
        ),
        Details(
            "Where the similarities differ",
            [Picture(png(change), alt=f"Difference of the similarities of {shape}")],
        ),
    ]


def _confusion_pictures(run: Run, task: str, counts: np.ndarray, classes: tuple[str, ...]) -> list[Block]:
    n = f"{task} on {run.data_name}, n = {int(counts.sum()):,}"
    names = {"rows_are": "right class", "columns_are": "answer", "n": n}
    after = Matrix(title=run.model.name, values=counts, rows=classes, columns=classes)
    reference = run.reference_results.get(task)
    if reference is None:
        return [Picture(png(side_by_side([after], "samples", **names)), alt=f"Confusion matrix of {task}")]
    before_counts = np.array(reference.details["confusion"], dtype=np.float64)
    before = Matrix(title="float", values=before_counts, rows=classes, columns=classes)
    recalls = (reference.details["per_class_recall"], run.results[task].details["per_class_recall"])
    table = Table(
        columns=("Class", "Float (%)", "Quantized (%)", "n"),
        rows=[
            (name, _percent(old), _percent(new), f"{int(total):,}")
            for name, old, new, total in zip(classes, *recalls, counts.sum(axis=1), strict=True)
        ],
        caption=f"Share of each class's samples that {task} gets right.",
    )
    return [
        Picture(
            png(side_by_side([before, after], "samples", **names)),
            alt=f"Confusion matrices of {task} on {run.data_name}, float and quantized",
            caption=f"{task}: how many samples of each class (row) got which answer (column).",
        ),
        Details(f"{task}: class by class", [table]),
    ]


def _by_data(runs: Sequence[Run]) -> list[list[tuple[Run, Similarity]]]:
    """Put runs together whose samples and float cosines are the same."""
    groups: list[list[tuple[Run, Similarity]]] = []
    for run in runs:
        if run.similarity is None:
            continue
        for group in groups:
            first = group[0][1]
            if first.rows == run.similarity.rows and np.array_equal(first.reference, run.similarity.reference):
                group.append((run, run.similarity))
                break
        else:
            groups.append([(run, run.similarity)])
    return groups


def _values(similarity: Similarity, part: str, side: str) -> np.ndarray:
    return np.asarray(getattr(similarity, f"{part}_{side}"), dtype=np.float64)


def _percent(share: float | None) -> str:
    return "\u2013" if share is None else f"{100 * share:.1f}"
