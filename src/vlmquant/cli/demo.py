"""`vlmquant demo`: every verb on the bundled model, offline, ending with one page."""

import time
from pathlib import Path
from typing import Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.manifest import print_manifest
from vlmquant.cli.options import Json


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo-out"
    ),
    json_output: Json = False,
) -> None:
    """Quantize, verify, bench, score and search a video with the bundled model, offline."""
    from vlmquant.demo.page import SUMMARY_COLUMNS, demo_page, summary_rows
    from vlmquant.demo.run import FILES, VERB, run_demo
    from vlmquant.output import results
    from vlmquant.report.page import write_page

    started = time.monotonic()
    shown = run_demo(output, tell=_nothing if json_output else show.line, track=show.tracker(json_output))
    with results(output, VERB, FILES):
        page = write_page(output / "index.html", demo_page(shown))
    minutes = (time.monotonic() - started) / 60
    if json_output:
        show.as_json(
            {"page": str(page), "minutes": minutes, "comparisons": [row.to_dict() for row in shown.comparisons]}
        )
        return
    print_manifest(shown.bundle, shown.report.manifest)
    show.table("The bundled street CLIP, float beside INT8", SUMMARY_COLUMNS, summary_rows(shown))
    show.line(f"done in {minutes:.1f} minutes; open {page.resolve()}")


def _nothing(text: str) -> None:
    """Tell nobody: a machine reads the output."""
