"""A new kind of source is one file and one row of `SOURCES`: `vlmquant detect` takes names of it."""

import json
from pathlib import Path

import pytest
from fake_source import open_flashes

from vlmquant.opening.first_use import calibration_from_videos
from vlmquant.progress import silent
from vlmquant.video.sources import SOURCES


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "flashes", open_flashes)


def test_detect_watches_it_and_says_why_there_is_no_annotated_copy(run, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("detect", "flashes://porch", "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out", "--json")
    (found,) = json.loads(run(*words))["videos"]
    assert found["video"] == "flashes://porch"
    assert found["frames"] == 10
    assert found["video_seconds"] == pytest.approx(2.0)
    assert len(found["notes"]) == 1
    assert "the annotated copy is left out" in found["notes"][0]
    assert "porch" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_a_checkpoint_can_be_calibrated_on_its_frames() -> None:
    found = calibration_from_videos(["flashes://porch"], silent)
    assert found.images_from == "2 frames sampled from porch"
    assert found.images[0].shape == (48, 48, 3)


def test_another_kind_is_a_file_that_does_not_exist(run_refused, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("detect", "smoke://porch", "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out")
    assert "smoke://porch" in run_refused(*words)
