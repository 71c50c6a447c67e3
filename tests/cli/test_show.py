"""What commands print: names literally, whatever is in them."""

import pytest

from vlmquant.cli import show

ODD = "[red]x[/red] :dog: $a_b$ \x1b]0;OWNED\x07 caf\udce9 \u202e"
SHOWN = r"[red]x[/red] :dog: $a_b$ \x1b]0;OWNED\x07 caf\udce9 \u202e"


def test_a_line_shows_a_name_literally(capsys: pytest.CaptureFixture[str]) -> None:
    show.line(ODD)
    assert capsys.readouterr().out == SHOWN + "\n"


def test_a_table_shows_names_literally_in_title_heads_and_cells(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(ODD, (ODD, "n"), [(ODD, 1)])
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3
    assert "\x1b" not in out
