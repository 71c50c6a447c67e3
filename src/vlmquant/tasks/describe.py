"""Pictures of the user's own, described: captions for many of them, answers about one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmquant.data.folders import image_files
from vlmquant.data.images import FileImage, LazyImages, inspect
from vlmquant.errors import DataError
from vlmquant.files import digest, write_whole
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.spec import Image
from vlmquant.models.writer import Writer
from vlmquant.opening import Opened, RunsOn, open_named
from vlmquant.output import OutputFolder, results
from vlmquant.progress import Track, silent
from vlmquant.tasks.captioning import write_captions
from vlmquant.tasks.store import Journal
from vlmquant.text import csv_table

VERB = "caption"
FORMATS = (".jsonl", ".csv")


@dataclass(frozen=True, kw_only=True)
class Described:
    """What `opened` said, one row a picture or question; `skipped` says why other pictures could not be read."""

    opened: Opened
    rows: tuple[Mapping[str, str], ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Pictures that decode, with the sha256 of each file, and of the others why they do not."""

    images: LazyImages
    hashes: tuple[str, ...]
    broken: Mapping[str, str]


def caption_files(
    paths: Sequence[Path],
    model: str | Path | None,
    *,
    output: Path | None = None,
    prompt: str = "",
    runs_on: RunsOn | None = None,
    options: GenerationOptions | None = None,
    track: Track = silent,
) -> Described:
    """Write a caption for every picture in `paths`, files or folders of them; each begins with `prompt`.

    `model` is what `open_named` takes. With `output`, a .jsonl or .csv file, the rows are written there, whole or not
    at all; a run that was killed goes on where it was. Raises DataError where no picture can be read.
    """
    _check_output(output)
    pictures = usable_pictures(paths)
    opened = open_named(model, head="captioner", runs_on=runs_on, options=options, track=track)
    names = pictures.images.ids
    # A picture that was replaced since an interrupted run is another one.
    keys = [f"{name} {sha256}" for name, sha256 in zip(names, pictures.hashes, strict=True)]
    journal = None if output is None else Journal(_journal_path(output), digest(opened.identity, prompt))
    captioner = _Prompted(opened.generator, prompt)
    captions = write_captions(captioner, pictures.images, keys, journal=journal, track=track)
    rows = tuple({"image": name, "caption": text} for name, text in zip(names, captions, strict=True))
    if output is not None:
        with results(output.parent, VERB, [output.name]):
            write_whole(output, csv_table(list(rows[0]), rows) if output.suffix == ".csv" else _as_lines(rows))
        _journal_path(output).unlink(missing_ok=True)
    return Described(opened=opened, rows=rows, skipped=pictures.broken)


def answer_about(
    image: Path,
    questions: Sequence[str],
    model: str | Path | None,
    *,
    runs_on: RunsOn | None = None,
    options: GenerationOptions | None = None,
    track: Track = silent,
) -> Described:
    """Answer questions about one picture. Raises DataError for an empty question or a picture that cannot be read."""
    for question in questions:
        if not question.strip():
            raise DataError('an empty question has no answer; ask something, such as "what colour is the bus?"')
    if image.is_dir():
        raise DataError(f"{image} is a folder; name one picture in it")
    pictures = usable_pictures([image])
    opened = open_named(model, head="answerer", runs_on=runs_on, options=options, track=track)
    answers = opened.generator.answer([pictures.images[0]] * len(questions), questions)
    rows = tuple({"question": asked, "answer": said} for asked, said in zip(questions, answers, strict=True))
    return Described(opened=opened, rows=rows)


def usable_pictures(paths: Sequence[Path]) -> Pictures:
    """Return the pictures of files and folders that decode, and of the others why they do not.

    Raises DataError when none is left.
    """
    files = [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"no picture in {', '.join(map(str, paths))}; expected image files or folders of them")
    good: dict[Path, str] = {}
    broken: dict[str, str] = {}
    for file in dict.fromkeys(files):
        seen = inspect(FileImage(file))
        if seen.missing or seen.broken is not None:
            broken[str(file)] = "the file does not exist" if seen.missing else str(seen.broken)
        else:
            good[file] = seen.sha256
    if not good:
        first, reason = next(iter(broken.items()))
        if len(broken) == 1:
            raise DataError(f"image {first} cannot be read: {reason}; give another picture")
        raise DataError(f"none of {len(broken)} pictures can be read; the first is {first}: {reason}")
    return Pictures(LazyImages(tuple(map(str, good)), tuple(map(FileImage, good))), tuple(good.values()), broken)


@dataclass(frozen=True)
class _Prompted:
    """A captioner whose captions all begin alike."""

    runner: Writer
    prompt: str

    @property
    def name(self) -> str:
        return self.runner.name

    def caption(self, images: Sequence[Image]) -> list[str]:
        return self.runner.caption(images, self.prompt)


def _check_output(output: Path | None) -> None:
    """Raise DataError for an output file of another kind or that `caption` did not make; see `OutputFolder.check`."""
    if output is not None:
        if output.suffix not in FORMATS:
            raise DataError(f"{output} ends in {output.suffix!r}; expected {' or '.join(FORMATS)}")
        OutputFolder(output.parent, VERB).check([output.name])


def _journal_path(output: Path) -> Path:
    """Return where the finished items of a run stand until its output is written."""
    return output.with_name(f".{output.name}.journal")


def _as_lines(rows: Sequence[Mapping[str, str]]) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
