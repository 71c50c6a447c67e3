"""One self-contained HTML page out of a few kinds of blocks.

The file needs no network and runs no script: pictures are embedded, the style is inline, and its own content security
policy forbids the rest. It follows the reader's light or dark setting, fits a phone and prints.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlmquant.files import write_whole

TEMPLATES = Path(__file__).parent / "templates"

_MEDIA_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_NUMBER = re.compile(r"[+\-\u2212]?\d")  # U+2212 is the minus sign
_NO_VALUE = frozenset({"", "-", "\u2013", "\u2014"})  # hyphen, en dash, em dash


@dataclass(frozen=True)
class Heading:
    """Starts a section; the line under the page's title links to it."""

    kind: ClassVar[str] = "heading"
    text: str

    @property
    def anchor(self) -> str:
        """The section's id: lower case words joined by hyphens."""
        return re.sub(r"\W+", "-", self.text.lower()).strip("-") or "section"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Notice:
    """Something the reader must not miss: a title and one sentence per line."""

    kind: ClassVar[str] = "notice"
    title: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class KeyFigure:
    """One large number: what it is, the number with its unit, and what it depends on."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """A row of large numbers."""

    kind: ClassVar[str] = "key_figures"
    figures: Sequence[KeyFigure]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells, already formatted; columns of numbers are set flush right, rows in `highlighted` stand out.

    Raises ValueError when a row has not one cell per column.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    highlighted: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} cells, one per column, got {list(row)}")

    @property
    def numeric(self) -> list[bool]:
        """For each column whether every cell that is not empty or a dash begins with a number."""
        columns = [[row[i].strip() for row in self.rows if row[i].strip() not in _NO_VALUE] for i in self._indices]
        return [bool(cells) and all(_NUMBER.match(cell) for cell in cells) for cells in columns]

    @property
    def _indices(self) -> range:
        return range(len(self.columns))


@dataclass(frozen=True)
class Facts:
    """Names and their values, such as the settings of a run."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file's bytes, what it shows in words (`alt`), and a caption.

    Raises ValueError for another format or without `alt`.
    """

    kind: ClassVar[str] = "picture"
    data: bytes
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.alt:
            raise ValueError("a picture needs words for readers who cannot see it, got alt=''")
        if self._media_type is None:
            raise ValueError(f"a picture must be the bytes of a PNG or JPEG file, got {self.data[:8]!r}...")

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:{self._media_type};base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def _media_type(self) -> str | None:
        return next((kind for magic, kind in _MEDIA_TYPES.items() if self.data.startswith(magic)), None)


@dataclass(frozen=True)
class Thumbnail:
    """A small picture with a title and lines below it."""

    picture: Picture
    title: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """Thumbnails side by side, as many in a row as fit."""

    kind: ClassVar[str] = "gallery"
    thumbnails: Sequence[Thumbnail]


@dataclass(frozen=True)
class Links:
    """Files that lie beside the page: what each is, and its path from the page's folder."""

    kind: ClassVar[str] = "links"
    files: Sequence[tuple[str, str]]

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Words and relative address of each file."""
        return [(words, quote(path)) for words, path in self.files]


@dataclass(frozen=True)
class Details:
    """Blocks behind a line that opens them; printed in full."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: "Sequence[Block]"


Block: TypeAlias = Heading | Text | Notice | KeyFigures | Table | Facts | Picture | Gallery | Links | Details


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: what it is about, one line more, its blocks, and a last line."""

    title: str
    subtitle: str
    blocks: Sequence[Block]
    footer: str = ""

    @property
    def headings(self) -> list[Heading]:
        """The sections, in order."""
        return [block for block in self.blocks if isinstance(block, Heading)]


def render_page(page: Page) -> str:
    """Return the page as HTML. Every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(page=page)


def write_page(path: Path, page: Page) -> Path:
    """Write the page to `path`, which appears whole or not at all, and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, render_page(page))
