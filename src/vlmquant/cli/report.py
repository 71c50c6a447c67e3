"""`vlmquant report`."""

from pathlib import Path
from typing import Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.options import Json
from vlmquant.errors import DataError

PAGE_SUFFIXES = (".html", ".htm")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `evaluate -o`, and folders of `bench -o`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, ending in .html.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="The page's title; a plain one otherwise.")] = "",
    json_output: Json = False,
) -> None:
    """Make one page of evaluations, and beside it the same as Markdown, JSON and CSV."""
    from vlmquant import __version__
    from vlmquant.report.evaluation import evaluation_page
    from vlmquant.report.formats import to_dict, write_report
    from vlmquant.tasks.runs import read_evidence

    if output.suffix.lower() not in PAGE_SUFFIXES:
        raise DataError(f"the report is a page and {str(output)!r} does not end in .html; give such a name")
    evidence = read_evidence(runs)
    page = evaluation_page(evidence, title=title, footer=f"Made by vlmquant {__version__}.")
    written = write_report(output, page, evidence)
    if json_output:
        show.as_json({"files": [str(path) for path in written], **to_dict(evidence)})
        return
    for path in written:
        show.line(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")
