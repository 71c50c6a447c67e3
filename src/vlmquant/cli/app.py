"""All commands in one place; the file of one is imported when it is called."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from vlmquant import __version__


@dataclass(frozen=True)
class Verb:
    """A command: where its function is, as "module:function", and the first sentence of its help."""

    place: str
    summary: str

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, _, function = self.place.partition(":")
        loaded: Callable[..., Any] = getattr(import_module(module), function)
        return loaded


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "vlmquant.cli.demo:demo", "Quantize, verify, bench, score and search a video with the bundled model, offline."
    ),
    "doctor": Verb(
        "vlmquant.cli.doctor:doctor",
        "Say what this machine is and whether INT8 pays on it, in about ten seconds and offline.",
    ),
    "quantize": Verb("vlmquant.cli.quantize:quantize", "Turn a float checkpoint into a verified integer bundle."),
    "budget": Verb(
        "vlmquant.cli.budget:budget",
        "Find the fastest form of a recipe inside a budget of accuracy, size and time, with a log of the search.",
    ),
    "recover": Verb(
        "vlmquant.cli.recover:recover",
        "Quantize after a short tuning without labels: for bit-widths at which a recipe alone costs too much.",
    ),
    "recipes": Verb("vlmquant.cli.quantize:recipes", "List the recipe presets."),
    "verify": Verb(
        "vlmquant.cli.quantize:verify", "Re-hash a bundle's files and re-run its stored probes on the engines."
    ),
    "bench": Verb(
        "vlmquant.cli.bench:bench_command",
        "Time a bundle beside its float original, each contender in its own process, rounds alternated.",
    ),
    "detect": Verb("vlmquant.cli.detect:detect", "Find events named in plain words in video files."),
    "caption": Verb("vlmquant.cli.blip:caption", "Write a caption for every picture."),
    "answer": Verb("vlmquant.cli.blip:answer", "Answer questions about a picture."),
    "evaluate": Verb(
        "vlmquant.cli.evaluate:evaluate",
        "Score a model on data and compare it, sample by sample, with its float original.",
    ),
    "selfcheck": Verb(
        "vlmquant.cli.evaluate:selfcheck",
        "Recompute every score whose value is known, offline; exit code 6 when one is off.",
    ),
    "report": Verb(
        "vlmquant.cli.report:report", "Make one page of evaluations, and beside it the same as Markdown, JSON and CSV."
    ),
    "analyze": Verb(
        "vlmquant.cli.analyze:analyze",
        "Show what a recipe does inside a checkpoint: distributions, noise, sensitive layers, similarities.",
    ),
    "sweep": Verb(
        "vlmquant.cli.sweep:sweep",
        "Try recipes x bit-widths x towers: score, closeness, size and latency of each, and which are worth having.",
    ),
    "reproduce": Verb(
        "vlmquant.cli.reproduce:reproduce",
        "Run the evaluation of a published system again: its method and ours beside the figures that it prints.",
    ),
}
"""A new command is a file of its own and a row here."""


class _Verbs(typer.core.TyperGroup):
    """A group that lists all of `VERBS` without importing any, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the whole command and what is left of `args`."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and command(str(name)), rest


def make_app() -> typer.Typer:
    """Return the command line with all of `VERBS`."""
    app = typer.Typer(
        cls=_Verbs,
        help="Make a CLIP or BLIP small, fast and still right, and find events in video on an ordinary CPU.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_before_any_verb)
    for name, verb in VERBS.items():
        app.command(name, help=verb.summary)(_listed)
    return app


def _listed() -> None:
    """Stand in the list for a command that is not imported."""


def command(name: str) -> Any:
    """Import a verb and return its command."""
    from vlmquant.cli.options import with_levels

    alone = typer.Typer(add_completion=False)
    alone.command(name)(with_levels(VERBS[name].load()))
    return typer.main.get_command(alone)


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
