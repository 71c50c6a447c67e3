"""The folder of each video's results."""

from pathlib import Path

import pytest

from vlmquant.errors import DataError
from vlmquant.video.folders import result_folders


def test_one_video_takes_the_folder_itself_and_several_one_each() -> None:
    assert result_folders([Path("x/cam.mp4")], Path("out")) == [Path("out")]
    assert result_folders([Path("x/cam.mp4"), Path("x/door.mp4")], Path("out")) == [
        Path("out/cam.mp4"),
        Path("out/door.mp4"),
    ]


def test_videos_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    names = ["a/cam.mp4", "b/cam.mp4", "b/CAM.mp4", "x/a/cam.mp4", "door.mp4"]
    videos = [tmp_path / name for name in names]
    folders = [path.name for path in result_folders(videos, Path("out"))]
    assert len({name.casefold() for name in folders}) == 5
    assert folders[-1] == "door.mp4"
    assert "x_a_cam.mp4" in folders
    assert all(name.casefold().endswith(("cam.mp4", "cam.mp4-2", "door.mp4")) for name in folders)


def test_long_names_stay_within_what_file_systems_hold(tmp_path: Path) -> None:
    videos = [tmp_path / parent / ("é" * 120 + ".mp4") for parent in ("a" * 200, "b" * 200)]
    folders = result_folders(videos, Path("out"))
    assert len(set(folders)) == 2
    assert all(len(path.name.encode()) < 250 for path in folders)


def test_a_video_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than once"):
        result_folders([tmp_path / "a.mp4", tmp_path / "b" / ".." / "a.mp4"], Path("out"))
