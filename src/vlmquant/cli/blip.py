"""`vlmquant caption` and `vlmquant answer`: BLIP at work on pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.groups import generation, made_of, runs_on, short_generation
from vlmquant.cli.options import Json
from vlmquant.errors import ExitCode
from vlmquant.models.generate import GenerationOptions
from vlmquant.opening import RunsOn

if TYPE_CHECKING:
    from vlmquant.tasks.describe import Described

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A bundle, checkpoint folder or hub id; the bundled street BLIP otherwise."),
]


@made_of(options=generation, where=runs_on)
def caption(
    images: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    *,
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .jsonl or .csv file; a killed run goes on where it was.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What every caption begins with.")] = "",
    options: GenerationOptions,
    where: RunsOn,
    json_output: Json = False,
) -> None:
    """Write a caption for every picture.

    A picture that cannot be decoded is named and skipped; exit code 5 says that there was one.
    """
    from vlmquant.tasks.describe import caption_files

    found = caption_files(
        images,
        model,
        output=output,
        prompt=prompt,
        runs_on=where,
        options=options,
        track=show.tracker(json_output),
    )
    _print(found, output, json_output)


@made_of(options=short_generation, where=runs_on)
def answer(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.")],
    *,
    model: Model = None,
    options: GenerationOptions,
    where: RunsOn,
    json_output: Json = False,
) -> None:
    """Answer questions about a picture."""
    from vlmquant.tasks.describe import answer_about

    found = answer_about(image, questions, model, runs_on=where, options=options, track=show.tracker(json_output))
    _print(found, None, json_output)


def _print(found: "Described", output: Path | None, json_output: bool) -> None:
    """Print what was found, say what was skipped, and end with a code of its own when something was."""
    rows, skipped, opened = found.rows, found.skipped, found.opened
    if json_output:
        notes = list(opened.notes)
        show.as_json(
            {"model": dict(opened.facts), "notes": notes, "rows": list(map(dict, rows)), "skipped": dict(skipped)}
        )
    else:
        if output is not None:
            show.line(f"{len(rows)} captions by {opened.name} in {output}")
        elif rows:
            show.table(opened.name, tuple(rows[0]), [tuple(row.values()) for row in rows])
        for note in opened.notes:
            show.line(note)
        for name, reason in skipped.items():
            show.line(f"skipped {name}: {reason}")
        if skipped:
            show.line(f"{len(skipped)} of {len(rows) + len(skipped)} pictures skipped")
    if skipped:
        raise typer.Exit(ExitCode.SOME_SKIPPED)
