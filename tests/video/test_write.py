import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.errors import DataError
from vlmquant.video.detect import Detection
from vlmquant.video.events import Event, EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.sources.source import VideoInfo
from vlmquant.video.timeline import timeline_figure
from vlmquant.video.write import COLUMNS, WRITERS, event_rows, write_detection


def found(name: str, start: float, end: float) -> Event:
    return Event(
        name=name,
        start_seconds=start,
        end_seconds=end,
        peak_seconds=start,
        peak_score=0.98765432,
        mean_score=0.75,
    )


@pytest.fixture
def detection() -> Detection:
    events = (
        found("a dog & <cat>", 0.5, 2.0),
        found("crowd, dense", 1.0, 1.0002),
        found("crowd, dense", 3723.4567, 3724),
    )
    return Detection(
        info=VideoInfo(
            path=Path("folder") / "street.mp4",
            width=64,
            height=48,
            duration_seconds=3725.0,
            average_fps=25.0,
            codec="h264",
            rotation_degrees=0,
        ),
        model="street-clip [openvino]",
        queries=(
            EventQuery("a dog & <cat>", ("a dog", "a cat")),
            EventQuery("crowd, dense", ("a crowd",), ("a café",)),
        ),
        rule=EventRule(),
        fps=5.0,
        events=events,
        thumbnails=tuple(np.full((20, 30, 3), 40 * index, np.uint8) for index in range(3)),
        pts_seconds=np.array([0.0, 0.2, 0.4, 3724.0]),
        scores=np.array([[0.1, 0.2], [0.9, 0.25], [1.0, 0.0], [0.5, 0.5]], np.float32),
        latency_ms=np.array([5.0, 6.0, 7.0, 8.0]),
        end_seconds=3725.0,
        wall_seconds=10.0,
        warnings=(),
    )


def nothing(detection: Detection) -> Detection:
    return replace(detection, events=(), thumbnails=())


def test_all_outputs_appear_and_no_temporary_file_stays(detection: Detection, tmp_path: Path) -> None:
    paths = write_detection(detection, tmp_path / "new" / "out")
    assert set(paths) == set(WRITERS)
    assert all(path.exists() for path in paths.values())
    assert {path.name for path in (tmp_path / "new" / "out").rglob("*") if path.is_file()} == {
        "events.jsonl",
        "events.csv",
        "scores.csv",
        "events.vtt",
        "timeline.png",
        "vlmquant-files.json",
        "0001.jpg",
        "0002.jpg",
        "0003.jpg",
    }


def test_jsonl_rows_say_everything(detection: Detection, tmp_path: Path) -> None:
    path = write_detection(detection, tmp_path, ["jsonl"])["jsonl"]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == event_rows(detection)
    assert rows[1] == {
        "schema_version": 1,
        "id": "0002",
        "video": "street.mp4",
        "name": "crowd, dense",
        "start_seconds": 1.0,
        "end_seconds": 1.0002,
        "peak_seconds": 1.0,
        "peak_score": 0.987654,
        "mean_score": 0.75,
        "prompts": ["a crowd"],
        "contrast": list(detection.queries[1].contrast),
        "model": "street-clip [openvino]",
        "config_sha256": detection.config_sha256,
    }
    assert rows[1]["contrast"][-1] == "a café"
    assert {found.name for found in tmp_path.iterdir()} == {"events.jsonl", "vlmquant-files.json"}


def test_csv_has_the_same_rows(detection: Detection, tmp_path: Path) -> None:
    path = write_detection(detection, tmp_path, ["csv"])["csv"]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert [row["name"] for row in rows] == ["a dog & <cat>", "crowd, dense", "crowd, dense"]
    assert rows[0]["prompts"] == "a dog | a cat"
    assert float(rows[2]["start_seconds"]) == 3723.4567


def test_scores_have_one_row_per_frame_and_one_column_per_event(detection: Detection, tmp_path: Path) -> None:
    path = write_detection(detection, tmp_path, ["scores"])["scores"]
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["pts_seconds", "a dog & <cat>", "crowd, dense"]
    assert rows[1] == ["0.200000", "0.900000", "0.250000"]
    assert len(rows) == 4


def test_vtt_is_valid(detection: Detection, tmp_path: Path) -> None:
    text = write_detection(detection, tmp_path, ["vtt"])["vtt"].read_text(encoding="utf-8")
    header, *cues = text.strip().split("\n\n")
    assert header == "WEBVTT"
    assert [cue.split("\n")[1] for cue in cues] == [
        "00:00:00.500 --> 00:00:02.000",
        "00:00:01.000 --> 00:00:01.001",
        "01:02:03.457 --> 01:02:04.000",
    ]
    assert cues[0].split("\n") == ["0001", "00:00:00.500 --> 00:00:02.000", "a dog &amp; &lt;cat&gt; (0.99)"]


def test_an_event_name_cannot_break_out_of_its_cue(detection: Detection, tmp_path: Path) -> None:
    evil = "x\n\n00:00:00.000 --> 00:00:09.000\n<b>y"
    changed = replace(detection, queries=(EventQuery(evil, ("x",)),), events=(found(evil, 0, 1),))
    text = write_detection(changed, tmp_path, ["vtt"])["vtt"].read_text(encoding="utf-8")
    assert len(re.findall("-->", text)) == 1
    assert "<b>" not in text


def test_thumbnails_are_the_given_pictures_and_stale_ones_go(detection: Detection, tmp_path: Path) -> None:
    folder = write_detection(detection, tmp_path, ["thumbnails"])["thumbnails"]
    with Image.open(folder / "0003.jpg") as picture:
        assert picture.size == (30, 20)
        assert abs(np.asarray(picture).mean() - 80) < 2
    write_detection(replace(detection, events=detection.events[:1], thumbnails=detection.thumbnails[:1]), tmp_path)
    assert [path.name for path in folder.iterdir()] == ["0001.jpg"]


def test_no_event_gives_empty_tables_with_headers(detection: Detection, tmp_path: Path) -> None:
    paths = write_detection(nothing(detection), tmp_path)
    assert paths["jsonl"].read_text() == ""
    assert paths["csv"].read_text() == ",".join(COLUMNS) + "\n"
    assert paths["vtt"].read_text() == "WEBVTT\n"
    assert list(paths["thumbnails"].iterdir()) == []
    assert paths["timeline"].stat().st_size > 0


def test_a_failed_write_leaves_the_old_file(
    detection: Detection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_detection(detection, tmp_path, ["csv"])["csv"]
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match=r"cannot be written \(no space"):
        write_detection(nothing(detection), tmp_path, ["csv"])
    assert path.read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {"events.csv", "vlmquant-files.json"}


def test_an_unknown_output_is_refused_before_anything_is_written(detection: Detection, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown output 'xml'; known: csv, jsonl, scores, thumbnails, timeline, vtt"):
        write_detection(detection, tmp_path / "out", ["csv", "xml"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(detection: Detection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another output folder"):
        write_detection(detection, tmp_path / "file")


def test_the_timeline_shows_scores_thresholds_found_and_true_bars(detection: Detection) -> None:
    truth = [found("crowd, dense", 1.0, 3.0), found("something else", 0.0, 9.0)]
    dog, crowd = timeline_figure(detection, truth).axes
    assert [axes.get_title(loc="left") for axes in (dog, crowd)] == [
        "a dog & <cat>: 1 found, 0 true",
        "crowd, dense: 2 found, 1 true",
    ]
    curve, on, off = crowd.lines
    np.testing.assert_array_equal(curve.get_ydata(), detection.scores[:, 1])
    assert on.get_ydata()[0] == detection.rule.on
    assert off.get_ydata()[0] == detection.rule.off
    found_bars, true_bars = crowd.collections
    assert len(found_bars.get_paths()) == 2
    assert true_bars.get_paths()[0].get_extents().x1 == 3.0
    assert crowd.get_xlabel() == "time (s)"
    assert crowd.get_xlim() == (0, 3725.0)
    assert "n = 4 frames" in dog.figure.get_suptitle()


def test_without_truth_there_is_no_truth_in_the_timeline(detection: Detection) -> None:
    figure = timeline_figure(detection)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["score", "on 0.8", "off 0.6", "found"]


HOSTILE = "=cmd|'/c calc' $x^$ [red]a[/red] \x1b[2J\u202e"
SHOWN = "=cmd|'/c calc' $x^$ [red]a[/red] \\x1b[2J\\u202e"


@pytest.fixture
def hostile(detection: Detection) -> Detection:
    """Names that spreadsheets, terminals and drawing libraries would act on."""
    query = EventQuery(HOSTILE, ("@a dog", "-1"))
    info = replace(detection.info, path=Path("folder") / f"{HOSTILE.replace('/', ' ')}\udce9.mp4")
    return replace(detection, info=info, queries=(query,), events=(found(HOSTILE, 0.5, 2.0),),
                   thumbnails=detection.thumbnails[:1], scores=detection.scores[:, :1])  # fmt: skip


def test_names_are_written_literally_and_do_nothing(hostile: Detection, tmp_path: Path) -> None:
    paths = write_detection(hostile, tmp_path)
    with paths["csv"].open(newline="", encoding="utf-8") as file:
        (row,) = list(csv.DictReader(file))
    assert row["name"] == f"'{SHOWN}"
    assert row["video"].startswith("'=cmd")
    assert row["video"].endswith("\\udce9.mp4")
    assert row["prompts"] == "'@a dog | -1"
    assert paths["scores"].read_text(encoding="utf-8").splitlines()[0] == f"pts_seconds,'{SHOWN}"
    assert json.loads(paths["jsonl"].read_text(encoding="utf-8"))["name"] == HOSTILE
    vtt = paths["vtt"].read_text(encoding="utf-8")
    assert "\\x1b[2J" in vtt
    assert "\x1b" not in vtt


def test_the_timeline_shows_names_literally_and_shortens_long_ones(hostile: Detection) -> None:
    figure = timeline_figure(hostile)
    assert figure.axes[0].get_title(loc="left") == f"{SHOWN}: 1 found"
    figure.draw_without_rendering()
    long = replace(hostile, queries=(EventQuery("word " * 100, ("a dog",)),), events=())
    assert len(timeline_figure(long).axes[0].get_title(loc="left")) < 120


def test_what_cannot_be_written_is_one_sentence(detection: Detection, tmp_path: Path) -> None:
    (tmp_path / "events.csv").mkdir()
    with pytest.raises(DataError, match=r"events\.csv was not made by this program"):
        write_detection(detection, tmp_path)
