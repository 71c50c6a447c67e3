"""`vlmquant reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.options import Json, Threads
from vlmquant.text import counted


def reproduce(
    source: Annotated[
        str, typer.Argument(help="Which published system: event-detection, dq-clip, ptq4clip, blip-int8.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and all that was computed.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The source's data: of event-detection a video, of dq-clip CIFAR-100 or other labelled pictures, of "
            "ptq4clip a folder with any of ImageNetV2 (or class folders), COCO or Flickr captions and VQA v2, of "
            "blip-int8 a folder of captioned pictures; a drawn stand-in otherwise."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="The source's model, a folder or hub id; the bundled drawn-street one otherwise.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Take only so many samples (frames, pictures), for a quick look.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each contender is timed.")] = 3,
    language_model: Annotated[
        str | None, typer.Option(help="Of ptq4clip: the GPT-2 that writes captions on your data, a folder or hub id.")
    ] = None,
    answer_network: Annotated[
        Path | None,
        typer.Option(help="Of ptq4clip: the co-attention network that was trained on the checkpoint's features."),
    ] = None,
    threads: Threads = None,
    json_output: Json = False,
) -> None:
    """Run the evaluation of a published system again: its method and ours beside the figures that it prints.

    A run that was killed goes on where it was, with the same command.
    """
    from vlmquant.lab.reproduce.request import ReproductionRequest
    from vlmquant.lab.reproduce.run import check_source
    from vlmquant.lab.reproduce.run import reproduce as run
    from vlmquant.output import OutputFolder
    from vlmquant.report.reproduction import COLUMNS, FILES, VERB, tables, write_reproduction

    check_source(source)
    OutputFolder(output, VERB).check(FILES, [] if data is None else [data])
    asked = ReproductionRequest(
        output=output,
        data=data,
        checkpoint=checkpoint,
        limit=limit,
        rounds=rounds,
        threads=threads,
        language_model=language_model,
        answer_network=answer_network,
    )
    found = run(source, asked, show.tracker(json_output))
    written = write_reproduction(output, found)
    if json_output:
        show.as_json({"files": [str(path) for path in written], **found.to_dict()})
        return
    for group, rows in tables(found).items():
        show.table(group or found.title, COLUMNS, rows)
    for said in (*found.stand_ins, *found.notes):
        show.line(said)
    show.line(f"{found.computed} of {counted(found.steps, 'step')} computed now, the others were there")
    for path in written:
        show.line(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")
