"""`vlmquant report`."""

from pathlib import Path
from typing import Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.options import Json


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `evaluate -o`, and folders of `bench -o`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, ending in .html.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="The page's title; a plain one otherwise.")] = "",
    json_output: Json = False,
) -> None:
    """Make one page of evaluations, and beside it the same as Markdown, JSON and CSV."""
    from vlmquant.report.evaluation import report_runs
    from vlmquant.report.formats import to_dict

    written, evidence = report_runs(runs, output, title=title)
    if json_output:
        show.as_json({"files": [str(path) for path in written], **to_dict(evidence)})
        return
    for path in written:
        show.line(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")
