from html.parser import HTMLParser

import pytest

from vlmquant.report.page import (
    Details,
    Facts,
    Gallery,
    Heading,
    KeyFigure,
    KeyFigures,
    Notice,
    Page,
    Picture,
    Table,
    Text,
    Thumbnail,
    render_page,
    write_page,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not close in order."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


def outline(*blocks, title="A title"):
    return Outline(render_page(Page(title=title, subtitle="One line.", blocks=blocks, footer="The end.")))


EVERY_BLOCK = (
    Heading("First"),
    Text("words"),
    Notice("Careful", ["one", "two"]),
    KeyFigures([KeyFigure("Speed", "3.0x", "measured"), KeyFigure("Size", "1 MiB")]),
    Heading("Second"),
    Table(columns=("Name", "n"), rows=[("a", "1"), ("b", "-2")], caption="A table.", highlighted=frozenset({1})),
    Facts([("CPU", "some")]),
    Heading("Third"),
    Picture(PNG, "a chart", "A caption."),
    Gallery([Thumbnail(Picture(JPEG, "a frame"), "a person", ["0:01.0"])]),
    Details("More", [Text("inside"), Facts([("k", "v")])]),
)


def test_every_kind_of_block_is_well_formed_and_shown():
    page = outline(*EVERY_BLOCK)
    text = " ".join(page.text)
    for words in ("A title", "One line.", "words", "Careful", "two", "3.0x", "measured", "A table.", "A caption."):
        assert words in text
    for words in ("a person", "0:01.0", "More", "inside", "The end."):
        assert words in text
    assert [image["src"].split(",")[0] for image in page.all("img")] == [
        "data:image/png;base64",
        "data:image/jpeg;base64",
    ]
    assert [image["alt"] for image in page.all("img")] == ["a chart", "a frame"]


def test_the_page_needs_no_network_and_no_script():
    page = outline(*EVERY_BLOCK)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "default-src 'none'" in next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    for _, attributes in page.attributes:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    source = render_page(Page(title="t", subtitle="s", blocks=EVERY_BLOCK))
    assert "http://" not in source
    assert "https://" not in source
    assert "url(" not in source


def test_it_follows_the_readers_colours_screen_and_printer():
    source = render_page(Page(title="t", subtitle="s", blocks=EVERY_BLOCK))
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print", "overflow-x: auto"):
        assert part in source


@pytest.mark.parametrize(
    "block",
    [
        Heading("<b>&"),
        Text("<b>&"),
        Notice("<b>&", ["<b>&"]),
        KeyFigures([KeyFigure("<b>&", "<b>&", "<b>&")]),
        Table(columns=("<b>&",), rows=[("<b>&",)], caption="<b>&"),
        Facts([("<b>&", "<b>&")]),
        Picture(PNG, '"<b>&', "<b>&"),
        Gallery([Thumbnail(Picture(PNG, "<b>&"), "<b>&", ["<b>&"])]),
        Details("<b>&", [Text("<b>&")]),
    ],
    ids=lambda block: block.kind,
)
def test_texts_are_escaped(block):
    page = outline(block, title="<b>&")
    assert "b" not in page.tags
    assert "<b>&" in "".join(page.text)


def test_sections_are_linked_once_there_are_three():
    assert "nav" not in outline(Heading("One"), Heading("Two")).tags
    page = outline(Heading("One"), Heading("Two words, here"), Heading("Three"))
    assert [link["href"] for link in page.all("a")] == ["#one", "#two-words-here", "#three"]
    assert [heading["id"] for heading in page.all("h2")] == ["one", "two-words-here", "three"]


def test_columns_of_numbers_are_recognized():
    table = Table(
        columns=("name", "signed", "with unit", "mixed", "gaps", "empty"),
        rows=[("a", "+1", "3.5 ms", "1", "\u2013", ""), ("2b or not", "-2.0", "1,000 ms", "none", "7", "")],
    )
    assert table.numeric == [False, True, True, False, True, False]


def test_a_table_without_rows_has_no_numbers():
    assert Table(columns=("a", "b"), rows=[]).numeric == [False, False]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells"):
        Table(columns=("a", "b"), rows=[("1", "2"), ("1",)])


def test_a_picture_must_be_png_or_jpeg_and_have_words():
    with pytest.raises(ValueError, match="PNG or JPEG"):
        Picture(b"GIF89a", "a chart")
    with pytest.raises(ValueError, match="cannot see"):
        Picture(PNG, "")


def test_the_file_appears_whole_and_replaces_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "new" / "page.html"
    page = Page(title="t", subtitle="s", blocks=[Text("first")])
    assert write_page(path, page) == path
    assert "first" in path.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_page(path, Page(title="t", subtitle="s", blocks=[Text("second")]))
    assert "second" not in path.read_text(encoding="utf-8")
