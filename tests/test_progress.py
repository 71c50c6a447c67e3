"""Progress in a pipe: a line now and then, with the time left."""

import io
import threading

import pytest

from vlmquant.progress import PlainLines, bar, duration, progress_line


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (5, 20, 30, "Reading: 5 of 20 after 30 s, about 2 min left"),
        (0, 20, 30, "Reading: 0 of 20 after 30 s"),
        (5, None, 30, "Reading: 5 after 30 s"),
        (20, 20, 30, "Reading: 20 of 20 after 30 s"),
        (25, 20, 30, "Reading: 25 of 20 after 30 s"),
        (1, 200, 60, "Reading: 1 of 200 after 60 s, about 3 h 19 min left"),
    ],
)
def test_a_line_says_how_far_and_how_long(done: int, total: int | None, seconds: float, line: str) -> None:
    assert progress_line("Reading", done, total, seconds, seconds) == line


def test_what_is_left_shrinks_while_an_item_lasts() -> None:
    lines = [progress_line("Exporting", 1, 2, seconds, done_seconds=60) for seconds in (60, 100, 150)]
    assert [line.partition(", ")[2] for line in lines] == ["about 60 s left", "about 20 s left", ""]


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 90, 3600, 7500)] == [
        "0 s",
        "89 s",
        "2 min",
        "60 min",
        "2 h 5 min",
    ]


def test_short_work_shows_nothing() -> None:
    stream = io.StringIO()
    assert list(PlainLines(stream)(range(3), "Reading")) == [0, 1, 2]
    assert stream.getvalue() == ""


class Written(io.StringIO):
    """A stream that tells when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def flush(self) -> None:
        self.came.set()


def test_an_item_that_takes_long_is_told_of_while_it_lasts() -> None:
    stream = Written()
    for _ in PlainLines(stream, every_seconds=0.01)(["the only one"], "Exporting [red]\x1b"):
        assert stream.came.wait(10)
    first = stream.getvalue().splitlines()[0]
    assert first.startswith(r"Exporting [red]\x1b: 0 of 1 after ")


def test_an_error_ends_the_lines() -> None:
    before = threading.active_count()
    items = PlainLines(io.StringIO())([1, 0], "Dividing")
    next(items)
    with pytest.raises(ZeroDivisionError):
        items.throw(ZeroDivisionError)  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_bar_takes_a_description_literally(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar([1, 2], "[/red] of [a]")) == [1, 2]
