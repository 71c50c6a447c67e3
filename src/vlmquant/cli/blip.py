"""`vlmquant caption` and `vlmquant answer`: BLIP at work on pictures."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.models import FIRST_USE_RECIPE, first_use_folder
from vlmquant.cli.quantize import Json, Probe, Threads
from vlmquant.data.folders import image_files
from vlmquant.data.images import FileImage, LazyImages, inspect
from vlmquant.errors import DataError
from vlmquant.files import write_whole
from vlmquant.progress import Track, silent

if TYPE_CHECKING:
    from vlmquant.models.blip_runner import BlipRunner
    from vlmquant.models.generate import GenerationOptions
    from vlmquant.models.spec import Image
    from vlmquant.tasks.blip_subject import BlipSubject

FORMATS = (".jsonl", ".csv")
FIRST_USE_SCENES = 16

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A bundle, checkpoint folder or hub id; the bundled street BLIP otherwise."),
]
Engine = Annotated[str, typer.Option(help="auto, openvino or onnxruntime; for a bundle.")]
Device = Annotated[str, typer.Option(help="Where a checkpoint runs: cpu, cuda (in float16) or auto.")]
Beams = Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")]


def caption(
    images: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .jsonl or .csv file; a killed run goes on where it was.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What every caption begins with.")] = "",
    beams: Beams = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest caption, in tokens.")] = 40,
    engine: Engine = "auto",
    threads: Threads = None,
    probe: Probe = True,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Write a caption for every picture.

    A picture that cannot be decoded is named and skipped; exit code 5 says that there was one.
    """
    from vlmquant.models.generate import GenerationOptions
    from vlmquant.tasks.captioning import write_captions
    from vlmquant.tasks.journal import Journal
    from vlmquant.tasks.protocol import digest

    check_output(output)
    options = GenerationOptions(max_new_tokens=max_tokens, beams=beams)
    track = show.tracker(json_output)
    pictures, broken = usable_pictures(images)
    subject = open_subject("captioning", model, engine, threads, probe, device, options, track)
    journal = None
    if output is not None:
        journal = Journal(journal_path(output), digest(subject.identity, prompt))
    captions = write_captions(_Prompted(subject.runner, prompt), pictures, pictures.ids, journal=journal, track=track)
    rows = [{"image": name, "caption": text} for name, text in zip(pictures.ids, captions, strict=True)]
    finish(rows, broken, output, subject, json_output)


def answer(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.")],
    model: Model = None,
    beams: Beams = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 10,
    engine: Engine = "auto",
    threads: Threads = None,
    probe: Probe = True,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Answer questions about a picture."""
    from vlmquant.models.generate import GenerationOptions

    for question in questions:
        if not question.strip():
            raise DataError('an empty question has no answer; ask something, such as "what colour is the bus?"')
    pictures, broken = usable_pictures([image])
    if broken:
        raise DataError(f"image {image} cannot be read: {broken[str(image)]}; give another picture")
    options = GenerationOptions(max_new_tokens=max_tokens, beams=beams)
    subject = open_subject("vqa", model, engine, threads, probe, device, options, show.tracker(json_output))
    answers = subject.runner.answer([pictures[0]] * len(questions), questions)
    rows = [{"question": asked, "answer": said} for asked, said in zip(questions, answers, strict=True)]
    finish(rows, {}, None, subject, json_output)


@dataclass(frozen=True)
class _Prompted:
    """A captioner whose captions all begin alike."""

    runner: "BlipRunner"
    prompt: str

    @property
    def name(self) -> str:
        return self.runner.name

    def caption(self, images: "Sequence[Image]") -> list[str]:
        return self.runner.caption(images, self.prompt)


def open_subject(
    kind: str,
    model: str | None,
    engine: str,
    threads: int | None,
    probe: bool,
    device: str,
    options: "GenerationOptions",
    track: Track,
) -> "BlipSubject":
    """Open what the user named; None is the bundled street BLIP of this kind, quantized on first use."""
    from vlmquant.bundle.manifest import MANIFEST
    from vlmquant.tasks.blip_subject import open_blip_subject

    if model is not None:
        return open_blip_subject(model, engine=engine, threads=threads, device=device, options=options, probe=probe)
    from vlmquant import streetworld
    from vlmquant.checkpoints import load_blip

    name = "street-blip-captions" if kind == "captioning" else "street-blip-vqa"
    float_model = load_blip(streetworld.checkpoint(name))
    folder = first_use_folder(float_model.weights_sha256)
    if track is not silent:
        show.line("no model given (-m): using the bundled demonstration model, which only knows drawn street scenes")
    if not (folder / MANIFEST).is_file():
        from vlmquant.build.blip_build import quantize_blip
        from vlmquant.checkpoints.blip_inputs import components_of
        from vlmquant.quantize.recipes.presets import get_recipe

        recipe = get_recipe(FIRST_USE_RECIPE)
        recipes = dict.fromkeys(components_of(float_model), recipe)
        quantize_blip(float_model, recipes, streetworld.calibration_set(FIRST_USE_SCENES), folder, track=track)
    return open_blip_subject(folder, engine=engine, threads=threads, device=device, options=options, probe=probe)


def usable_pictures(paths: Sequence[Path]) -> tuple[LazyImages, dict[str, str]]:
    """Return the pictures of files and folders that decode, and of the others why they do not.

    Raises DataError when none is left.
    """
    files = [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"no picture in {', '.join(map(str, paths))}; expected image files or folders of them")
    good: list[Path] = []
    broken: dict[str, str] = {}
    for file in dict.fromkeys(files):
        seen = inspect(FileImage(file))
        if seen.missing or seen.broken is not None:
            broken[str(file)] = "the file does not exist" if seen.missing else str(seen.broken)
        else:
            good.append(file)
    if not good and len(broken) > 1:
        first, reason = next(iter(broken.items()))
        raise DataError(f"none of {len(broken)} pictures can be read; the first is {first}: {reason}")
    return LazyImages(tuple(map(str, good)), tuple(FileImage(file) for file in good)), broken


def check_output(output: Path | None) -> None:
    """Raise DataError for an output file of another kind, before any work is done."""
    if output is not None and output.suffix not in FORMATS:
        raise DataError(f"{output} ends in {output.suffix!r}; expected {' or '.join(FORMATS)}")


def journal_path(output: Path) -> Path:
    """Return where the finished items of a run stand until its output is written."""
    return output.with_name(f".{output.name}.journal")


def finish(
    rows: Sequence[Mapping[str, str]],
    broken: Mapping[str, str],
    output: Path | None,
    subject: "BlipSubject",
    json_output: bool,
) -> None:
    """Print or write what was found, say what was skipped, and end with code 5 when something was."""
    if output is not None:
        write_whole(output, as_csv(rows) if output.suffix == ".csv" else as_lines(rows))
        journal_path(output).unlink(missing_ok=True)
    if json_output:
        show.as_json({"model": dict(subject.facts), "rows": [dict(row) for row in rows], "skipped": dict(broken)})
    else:
        if output is None:
            show.table(subject.runner.name, tuple(rows[0]), [tuple(row.values()) for row in rows])
        else:
            show.line(f"{len(rows)} captions by {subject.runner.name} in {output}")
        for note in subject.runner.notes:
            show.line(f"warning: {note}")
        for name, reason in broken.items():
            show.line(f"skipped {name}: {reason}")
        if broken:
            show.line(f"{len(broken)} of {len(rows) + len(broken)} pictures skipped")
    if broken:
        raise typer.Exit(5)


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_lines(rows: Sequence[Mapping[str, str]]) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
