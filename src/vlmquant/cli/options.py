"""Options that several commands share: one name for one thing."""

import functools
import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmquant.engines import ENGINES, engine
from vlmquant.errors import DataError, ModelError
from vlmquant.limits import check_threads

LOG = logging.getLogger("vlmquant")
QUIET, NORMAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG


def _check_threads(threads: int | None) -> int | None:
    return None if threads is None else check_threads(threads)


def _check_split(name: str | None) -> str | None:
    if name == "":
        raise DataError("--split is empty; name a split of the data, or leave it out")
    return name


def check_engine(name: str) -> str:
    """Return an engine's name, "auto" or "all". Raises EngineError listing what exists."""
    if name not in ("auto", "all"):
        engine(name)
    return name


def check_device(name: str) -> str:
    """Return a device's name; whether it is there, only torch can tell. Raises ModelError for no such name."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ModelError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:0, cuda:1 and so on")
    return name


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Threads = Annotated[
    int | None, typer.Option(callback=_check_threads, help="CPU threads of the engine; its own choice when left out.")
]
Probe = Annotated[bool, typer.Option(help="Prove a bundle the first time it is opened on a machine.")]
Engine = Annotated[str, typer.Option(callback=check_engine, help=f"auto, {' or '.join(ENGINES)}; for a bundle.")]
Device = Annotated[str, typer.Option(callback=check_device, help="auto (CUDA when present), cpu, cuda or cuda:1.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read a pickled checkpoint; only from a source you trust.")
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="A preset (`vlmquant recipes` lists them) or a .json or .toml file.")
]
Prune = Annotated[
    float | None,
    typer.Option(
        help="Leave out the attention heads and MLP channels that make up this share (0 to 1) of each component's work."
    ),
]
Bundle = Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")]
Split = Annotated[
    str | None, typer.Option(callback=_check_split, help="Which split of the data; test, where they have several.")
]
Calibrate = Annotated[Path | None, typer.Option(help="Folder of images to measure activation ranges on.")]
Texts = Annotated[
    Path | None, typer.Option(help="File with one text per line for the text tower; built-in prompts otherwise.")
]


def words(text: str) -> tuple[str, ...]:
    """Return what a comma-separated option lists."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def says_more() -> bool:
    """Return whether the user asked for `--verbose`."""
    return LOG.isEnabledFor(VERBOSE)


def says_less() -> bool:
    """Return whether the user asked for `--quiet`."""
    return LOG.getEffectiveLevel() >= QUIET


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback where something fails.")]


def with_levels(verb: Callable[..., None]) -> Callable[..., None]:
    """Return `verb` with `--quiet` and `--verbose` after its own options."""

    @functools.wraps(verb)
    def run(*, quiet: bool, verbose: bool, **own: Any) -> None:
        LOG.setLevel(QUIET if quiet else VERBOSE if verbose else NORMAL)
        verb(**own)

    signature = inspect.signature(verb)
    both = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *both])  # type: ignore[attr-defined]
    run.__annotations__ = {**verb.__annotations__, "quiet": Quiet, "verbose": Verbose}
    return run
