"""All commands in one place."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from vlmquant import __version__
from vlmquant.cli import analyze, bench, blip, budget, demo, detect, doctor, evaluate, quantize, recover, report, sweep
from vlmquant.cli.options import with_levels

VERBS: dict[str, Callable[..., Any]] = {
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "quantize": quantize.quantize,
    "budget": budget.budget,
    "recover": recover.recover,
    "recipes": quantize.recipes,
    "verify": quantize.verify,
    "bench": bench.bench_command,
    "detect": detect.detect,
    "caption": blip.caption,
    "answer": blip.answer,
    "evaluate": evaluate.evaluate,
    "selfcheck": evaluate.selfcheck,
    "report": report.report,
    "analyze": analyze.analyze,
    "sweep": sweep.sweep,
}

"""A new command is a file of its own and a row here."""


def make_app() -> typer.Typer:
    """Return the command line with all of `VERBS`."""
    app = typer.Typer(
        help="Make a CLIP or BLIP small, fast and still right, and find events in video on an ordinary CPU.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_before_any_verb)
    for name, verb in VERBS.items():
        app.command(name)(with_levels(verb))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vlmquant {__version__}")
        raise typer.Exit


def _before_any_verb(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and leave.")
    ] = False,
) -> None:
    """Take the options that stand before the verb."""
