"""Caption tables: CSV and TSV with an image and a caption column, Flickr8k's and Flickr30k's among them."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from vlmquant.data.folders import read_lines
from vlmquant.data.images import IMAGE_SUFFIXES, FileImage
from vlmquant.data.sets import MAX_PROBLEM_SHARE, CaptionedImages, Entry, Problem, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent

IMAGE_COLUMNS = ("image", "image_name", "filepath", "filename", "file_name")
TOKEN_LINE = re.compile(r"(\S+\.\w+)#\d+\t(.*)")
"""A line of the original Flickr8k.token.txt and results_20130124.token of Flickr30k, which have no header."""
CAPTION_COLUMNS = ("caption", "comment", "title", "text")


def read_caption_table(
    table: Path,
    images: Path,
    *,
    split: Path | None = None,
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> CaptionedImages:
    """Read a table of (image, caption) rows; rows of one picture are its captions, in the file's order.

    The separator (`,`, tab or `|`) and the columns are found from the header: one of image, image_name, filepath,
    filename, file_name and one of caption, comment, title, text. Kaggle's Flickr30k `results.csv` (`|`) is such a
    table; the original Flickr8k and Flickr30k token files (`name.jpg#0<tab>caption`, no header) are read too.
    `images` is the folder of the pictures; `split`, a text file with one image name a line, keeps only those.
    Raises DataError for a header without these columns, for swapped columns, and beyond `max_problem_share`.
    """
    captions: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for number, row in enumerate(_rows(table), start=2):
        if row is None:
            problems.append(Problem(f"{table.name}:{number}", "broken row", "fewer cells than the header"))
            continue
        image, caption = row
        captions.setdefault(image, [])
        if caption:
            captions[image].append(caption)
        else:
            problems.append(Problem(f"{image} (line {number})", "empty caption"))
    _refuse_swapped(table, captions)
    if split is not None:
        captions, unknown = _select(captions, read_lines(split))
        problems = [problem for problem in problems if problem.id.split(" (line")[0] in captions] + unknown
    return captioned(table.stem, captions, images, problems, max_problem_share, track)


def captioned(
    name: str,
    captions: dict[str, list[str]],
    images: Path,
    problems: Sequence[Problem],
    max_problem_share: float,
    track: Track,
) -> CaptionedImages:
    """Return the screened data set of `captions`: the image's path below `images` to its captions."""
    bare = [Problem(image, "no caption") for image, texts in captions.items() if not texts]
    records = [Entry(image, FileImage(images / image), tuple(texts)) for image, texts in captions.items() if texts]
    screened = screen(name, records, problems=[*problems, *bare], max_problem_share=max_problem_share, track=track)
    return CaptionedImages(
        name=name,
        images=screened.images,
        digest=screened.digest(screened.payloads),
        problems=screened.problems,
        captions=screened.payloads,
    )


def _rows(table: Path) -> list[tuple[str, str] | None]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if TOKEN_LINE.match(first):
                found = [TOKEN_LINE.match(line) for line in (first, *file) if line.strip()]
                return [(match[1], match[2].strip()) if match else None for match in found]
            separator = max("\t|,", key=first.count)
            header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=separator), [])]
            image, caption = _column(table, header, IMAGE_COLUMNS), _column(table, header, CAPTION_COLUMNS)
            # Flickr30k's table is not quoted, and its captions contain quotation marks.
            unquoted = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE)
            rows = unquoted if separator == "|" else csv.reader(file, delimiter=separator)
            return [
                (row[image].strip(), row[caption].strip()) if len(row) > max(image, caption) else None
                for row in rows
                if row
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a UTF-8 table: {error}") from error


def _column(table: Path, header: Sequence[str], names: Sequence[str]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DataError(
        f"{table} has the columns {', '.join(header) or '(none)'}; "
        f"expected a header line with one of {', '.join(names)}"
    )


def _refuse_swapped(table: Path, captions: dict[str, list[str]]) -> None:
    def share(cells: Sequence[str]) -> float:
        return sum(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in cells) / max(1, len(cells))

    texts = [text for listed in captions.values() for text in listed]
    if share(texts) > 0.5 > share(list(captions)):
        raise DataError(
            f"the image and caption columns of {table} look swapped: the caption {texts[0]!r} is a file name; "
            "exchange the two names in the header"
        )


def _select(captions: dict[str, list[str]], wanted: Sequence[str]) -> tuple[dict[str, list[str]], list[Problem]]:
    kept: dict[str, list[str]] = {}
    problems = []
    for image in wanted:
        if image in kept:
            problems.append(Problem(image, "duplicate id", "twice in the split list"))
        elif image in captions:
            kept[image] = captions[image]
        else:
            problems.append(Problem(image, "no caption", "in the split list but not in the table"))
    return kept, problems
