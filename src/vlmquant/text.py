"""Text from outside (file names, events, manifests) made safe to show."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from vlmquant.errors import DataError

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder the line, break it, or cannot be encoded."""

_JOINERS = frozenset({"\u200c", "\u200d"})
"""Part of ordinary words in some scripts, and of emoji."""


def printable(text: str) -> str:
    r"""Return `text` with control characters and undecodable bytes as escapes, such as ``\x1b``; the rest as it is."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS
        else character
        for character in text
    )


def encodable(text: str) -> str:
    r"""Return `text` with undecodable bytes of file names and arguments as escapes, such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return the number and its noun: "1 frame", "2 frames"; `plural` is another one than with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def checked_text(text: str) -> str:
    """Return `text`, which a model is to read. Raises DataError where it holds bytes that are not UTF-8."""
    if encodable(text) != text:
        raise DataError(f"the text '{printable(text)}' holds bytes that are not UTF-8; write it in UTF-8")
    return text


def megabytes(count: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / 2**20:.1f} MiB"


_BEGIN_FORMULAS = ("=", "+", "-", "@")


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a table with a header as CSV, which spreadsheets show and do not run: see `csv_cell`."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=columns, lineterminator="\n")
    writer.writerow({column: csv_cell(column) for column in columns})
    writer.writerows({column: csv_cell(value) for column, value in row.items()} for row in rows)
    return stream.getvalue()


def csv_cell(value: object) -> object:
    """Return a cell; a name that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    bare = shown.strip()
    runs = bare.startswith(_BEGIN_FORMULAS) and len(bare) > 1 and not _is_number(bare)
    return f"'{shown}" if runs else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
