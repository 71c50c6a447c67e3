import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.detections import HOSTILE, SHOWN, found, hostile_detection, sample_detection
from vlmquant.errors import DataError, VlmQuantError
from vlmquant.video.detect import Detection
from vlmquant.video.score import EventQuery
from vlmquant.video.write import COLUMNS, WRITERS, event_rows, write_detection


@pytest.fixture
def detection() -> Detection:
    return sample_detection()


@pytest.fixture
def hostile() -> Detection:
    return hostile_detection()


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
    with pytest.raises(DataError, match=r"unknown output 'xml'; known: csv, jsonl, scores, thumbnails, vtt"):
        write_detection(detection, tmp_path / "out", ["csv", "xml"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(detection: Detection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VlmQuantError, match="choose another output"):
        write_detection(detection, tmp_path / "file")


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


def test_what_cannot_be_written_is_one_sentence(detection: Detection, tmp_path: Path) -> None:
    (tmp_path / "events.csv").mkdir()
    with pytest.raises(DataError, match=r"events\.csv was not made by this program"):
        write_detection(detection, tmp_path)
