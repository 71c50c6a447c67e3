"""The page of one or more evaluations: what quantization cost, how sure that is, and what it looks like."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vlmquant import __version__
from vlmquant.bench.result import BenchResult
from vlmquant.errors import DataError
from vlmquant.output import OutputFolder
from vlmquant.report.evaluation_pictures import (
    closeness_blocks,
    distribution_blocks,
    fidelity_blocks,
    matrix_blocks,
)
from vlmquant.report.evaluation_tables import (
    comparison_table,
    corpus_table,
    measurement_blocks,
    pareto_table,
    points,
    score_table,
    verdict_sentences,
)
from vlmquant.report.flips import flip_blocks
from vlmquant.report.formats import VERB, report_names, write_report
from vlmquant.report.matrices import side_by_side
from vlmquant.report.page import (
    Block,
    Details,
    Heading,
    KeyFigure,
    KeyFigures,
    Notice,
    Page,
    Picture,
    Text,
)
from vlmquant.report.pareto import MIB, Candidate, pareto_figure
from vlmquant.report.plots import png
from vlmquant.report.scores import (
    HEADLINES,
    Group,
    Scored,
    bits_figure,
    bits_matrix,
    differences_figure,
    group_scores,
    has_bit_sweep,
    metric_name,
    unit_of,
)
from vlmquant.tasks.catalogue import TASKS
from vlmquant.tasks.compare import Change
from vlmquant.tasks.runs import BENCH, Evidence, Run, latency_ms, read_evidence, run_files

PAGE_SUFFIXES = (".html", ".htm")


def report_runs(paths: Sequence[Path], output: Path, *, title: str = "") -> tuple[list[Path], Evidence]:
    """Make one page of run folders and benches, and beside it the same as Markdown, JSON and CSV.

    Returns the paths of all files and what they were made of. Raises DataError for an `output` that is not called
    .html, and for a path that is neither a run nor a bench; VlmQuantError where nothing can be written.
    """
    if output.suffix.lower() not in PAGE_SUFFIXES:
        raise DataError(f"the report is a page, and {str(output)!r} does not end in .html; choose a name that does")
    read = [*run_files(TASKS), BENCH]
    given = [file for path in paths for file in ([path / name for name in read] if path.is_dir() else [path])]
    OutputFolder(output.parent, VERB).check(report_names(output), given)
    evidence = read_evidence(list(paths))
    page = evaluation_page(evidence, title=title, footer=f"Made by vlmquant {__version__}.")
    return write_report(output, page, evidence), evidence


def evaluation_page(evidence: Evidence, *, title: str = "", footer: str = "") -> Page:
    """Return the whole page; what the runs do not hold is left out, and the last section says so."""
    runs = evidence.runs
    groups = group_scores(runs)
    absent = [f"{task} on {run.data_name}: {reason}." for run in runs for task, reason in run.skipped.items()]
    sections = [
        ("Scores", score_blocks(runs, groups)),
        ("Size, speed and score", pareto_blocks(evidence, groups, absent)),
        ("Bits", bits_blocks(groups, absent)),
        ("What changed", _per_run(runs, flip_blocks)),
        ("How close the embeddings are", fidelity_blocks(runs, absent) + _per_run(runs, closeness_blocks)),
        ("Similarities", distribution_blocks(runs, absent)),
        ("Matrices", _per_run(runs, lambda run: matrix_blocks(run, absent))),
        ("How this was measured", measurement_blocks(runs)),
    ]
    blocks: list[Block] = [*notices(runs), key_figures(runs, groups)]
    for heading, content in sections:
        if content:
            blocks += [Heading(heading), *content]
    if absent:
        blocks += [Heading("Not in this report"), *(Text(sentence) for sentence in dict.fromkeys(absent))]
    return Page(title=title or _title(runs), subtitle=_subtitle(runs), blocks=blocks, footer=footer)


def notices(runs: Sequence[Run]) -> list[Block]:
    """What a reader must know first: verdicts that are not "within", left-out data, and unlike machines."""
    lines = []
    for run in runs:
        lines += [f"{run.model.name} on {run.data_name}: {sentence}" for sentence in verdict_sentences(run)]
        if run.problems:
            lines.append(f"{len(run.problems)} entries of {run.data_name} could not be used and are in no score.")
    if len({run.environment.cpu_model for run in runs}) > 1:
        lines.append("The runs are from different machines; scores may differ in the last digits.")
    return [Notice("Read this first", lines)] if lines else []


def key_figures(runs: Sequence[Run], groups: Sequence[Group]) -> KeyFigures:
    """The first comparisons, the sizes and the closeness in large numbers."""
    run = runs[0]
    figures = []
    if len(runs) > 1:
        models = {scored.label for group in groups for scored in group.scores}
        figures.append(
            KeyFigure("Runs", str(len(runs)), f"{len(models)} models; the figures here are of the first run")
        )
    if run.reference is not None:
        small, large = run.model.bytes_on_disk, run.reference.bytes_on_disk
        note = f"from {large / MIB:.1f} MiB, {large / small:.1f} times smaller" if small < large else "no smaller"
        figures.append(KeyFigure("Size on disk", f"{small / MIB:.1f} MiB", note))
    for task, compared in run.comparisons.items():
        for found in compared:
            if found.metric in HEADLINES:
                interval = f"{points(found.difference.low)} to {points(found.difference.high)}"
                score = f"{100 * found.candidate:.2f} {unit_of([found.metric])}"
                note = f"points, 95 % interval {interval}; {score} on n = {found.samples:,}"
                name = f"{task} {metric_name(found.metric)}"
                figures.append(KeyFigure(name, points(found.difference.estimate), note))
    if run.fidelity is not None:
        mean = run.fidelity["measures"]["image_cosine"]["mean"]["estimate"]
        worst = run.fidelity["measures"]["image_cosine"]["worst"]
        figures.append(KeyFigure("Cosine to float", f"{mean:.5f}", f"mean over pictures; the worst is {worst:.5f}"))
    if not run.comparisons:
        for group in groups:
            if group.metric in HEADLINES:
                scored = group.scores[0]
                note = f"{group.data_name}, n = {scored.n:,}"
                name = f"{group.task} {metric_name(group.metric)}"
                figures.append(KeyFigure(name, f"{100 * scored.score.estimate:.2f} {unit_of([group.metric])}", note))
    return KeyFigures(figures)


def score_blocks(runs: Sequence[Run], groups: Sequence[Group]) -> list[Block]:
    """All differences as a chart and a table, then every score with its interval."""
    blocks: list[Block] = []
    compared = [(run, task, found) for run in runs for task, all_ in run.comparisons.items() for found in all_]
    if compared:
        charted = [
            (_row_label(run, task, found, len(runs)), found)
            for run, task, found in compared
            if found.metric in HEADLINES
        ]
        if charted:
            blocks.append(
                Picture(
                    png(differences_figure(charted)),
                    alt="Differences between the quantized and the float models with their 95 % intervals",
                    caption="Left of zero the quantized model is worse. Both models answered the same samples; the "
                    "interval is a bootstrap over pictures, 10,000 resamples, and no narrower than a score interval "
                    "where few answers changed.",
                )
            )
        blocks.append(comparison_table(compared))
    if groups:
        corpus = corpus_table(runs)
        blocks.append(Details("Every score", [score_table(groups), *([] if corpus is None else [corpus])]))
    return blocks


def pareto_blocks(evidence: Evidence, groups: Sequence[Group], absent: list[str]) -> list[Block]:
    """For every headline metric: scores and fidelity over size and latency, and which models are worth having."""
    blocks: list[Block] = []
    unmeasured: dict[str, None] = {}
    for group in groups:
        if group.metric not in HEADLINES:
            continue
        candidates = [candidate_of(scored, evidence.benches) for scored in group.scores]
        if len(candidates) < 2:
            absent.append(f"Pareto plot of {group.title}: it needs two models of one protocol, and there is one.")
            continue
        unmeasured |= dict.fromkeys(candidate.label for candidate in candidates if candidate.latency_ms is None)
        drawn: list[Block] = [
            Picture(
                png(pareto_figure(candidates, metric_name(group.metric), unit_of([group.metric]))),
                alt=f"{group.title} of {len(candidates)} models over what they cost",
                caption=f"{group.title}. Numbers are rows of the table below. Up and left is better; the line joins "
                "the models that no other beats in both axes of its panel. Bars are 95 % intervals.",
            ),
            pareto_table(candidates, group),
        ]
        blocks += drawn if not blocks else [Details(group.title, drawn)]
    if unmeasured:
        absent.append(
            f"Latency of {'; '.join(unmeasured)}: no bench of it was named; make one with `vlmquant bench BUNDLE "
            "--against FLOAT -o BENCH` and name BENCH beside the runs."
        )
    return blocks


def candidate_of(scored: Scored, benches: Sequence[BenchResult]) -> Candidate:
    """Return what a model costs and scores."""
    return Candidate(
        label=scored.label,
        size_bytes=scored.facts.bytes_on_disk,
        latency_ms=latency_ms(scored.benched_as, scored.engine, benches),
        score=scored.score,
        fidelity=scored.fidelity,
        n=scored.n,
    )


def bits_blocks(groups: Sequence[Group], absent: list[str]) -> list[Block]:
    """Scores against bits, and over the bits of both towers, where the runs differ in bits."""
    swept = [group for group in groups if group.metric in HEADLINES and has_bit_sweep(group)]
    blocks: list[Block] = []
    if swept:
        blocks.append(
            Picture(
                png(bits_figure(swept)),
                alt="Scores against the bits of the weights",
                caption="Bars are 95 % intervals; models whose towers have different bits are not drawn here.",
            )
        )
    else:
        absent.append("Scores against bits: no two of these runs have quantized models of different bits.")
    for group in groups:
        matrix = bits_matrix(group) if group.metric in HEADLINES else None
        if matrix is not None:
            n = f"n = {', '.join(f'{n:,}' for n in sorted({scored.n for scored in group.scores}))}"
            figure = side_by_side(
                [matrix], "score (%)", rows_are="image tower, weights", columns_are="text tower, weights", n=n
            )
            blocks.append(Picture(png(figure), alt=f"{group.title} over the bits of both towers"))
    return blocks


def _per_run(runs: Sequence[Run], blocks_of: Callable[[Run], list[Block]]) -> list[Block]:
    """Return the blocks of each run; beyond the first run they are folded behind the run's name."""
    blocks: list[Block] = []
    for run in runs:
        own = blocks_of(run)
        if own:
            blocks += own if len(runs) == 1 else [Details(f"{run.model.name} on {run.data_name}", own)]
    return blocks


def _row_label(run: Run, task: str, found: Change, runs: int) -> str:
    name = f"{task} {metric_name(found.metric)}"
    return name if runs == 1 else f"{run.model.name}: {name}, {run.data_name}"


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(run.model.name for run in runs))
    return f"What {names[0]} keeps of its original" if len(names) == 1 else f"{len(names)} models compared"


def _subtitle(runs: Sequence[Run]) -> str:
    data = list(dict.fromkeys(f"{run.data_name} ({run.images:,} pictures)" for run in runs))
    tasks = list(dict.fromkeys(task for run in runs for task in run.results)) or ["fidelity"]
    return f"{', '.join(tasks)} on {', '.join(data)}."
