"""A command in a file of its own, as a contributor would write one."""

from pathlib import Path
from typing import Annotated

import typer

from vlmquant.bundle.check import checked_bundle
from vlmquant.cli import show
from vlmquant.cli.options import Json


def weigh(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    json_output: Json = False,
) -> None:
    """Say what the files of a bundle weigh."""
    manifest = checked_bundle(bundle)
    if json_output:
        show.as_json({"bytes": manifest.total_bytes})
        return
    show.line(f"{manifest.name}: {manifest.total_bytes} bytes")
