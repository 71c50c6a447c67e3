"""Words for people and tables: names as they are, grammar, and cells that no spreadsheet runs."""

import csv
import io

import pytest

from vlmquant.errors import DataError
from vlmquant.text import checked_text, counted, csv_cell, csv_table, encodable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a street", "a street"),
        ("caf\u00e9 \u8857 \U0001f468\u200d\U0001f469", "caf\u00e9 \u8857 \U0001f468\u200d\U0001f469"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("b\udce9.mp4", r"b\udce9.mp4"),
    ],
)
def test_names_are_shown_as_they_are_and_move_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert encodable(text).encode()


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "event") for n in (0, 1, 2, 1200)] == ["0 events", "1 event", "2 events", "1,200 events"]
    assert counted(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize("formula", ["=1+1", "+cmd|'/c calc'!A1", "-2+3", "@SUM(A1)", " =1", "=cmd", "+1.5.2", "--1"])
def test_a_formula_becomes_text(formula: str) -> None:
    assert csv_cell(formula) == f"'{printable(formula)}"


@pytest.mark.parametrize("value", ["-1.5", "+2", "-1e-9", -1.5, 0, None, True, "a=b", "a - b", "-", ""])
def test_numbers_and_names_stay(value: object) -> None:
    assert csv_cell(value) == value


def test_a_table_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(("name", "n"), [{"name": 'a, "b"\n', "n": 1}]))))
    assert rows == [{"name": r'a, "b"\n', "n": "1"}]


def test_a_text_that_is_not_utf_8_is_not_for_a_model() -> None:
    assert checked_text("caf\u00e9") == "caf\u00e9"
    with pytest.raises(DataError, match=r"'caf\\udce9' holds bytes that are not UTF-8"):
        checked_text("caf\udce9")
