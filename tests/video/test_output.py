"""The folder of results: what is the user's stays."""

import errno
import json
from pathlib import Path

import pytest

from vlmquant.errors import DataError
from vlmquant.video import output
from vlmquant.video.output import RECORD, OutputFolder, result_folders, writing

NAMES = ("events.csv", "thumbnails", "annotated.mp4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the results of one run, and a file of the user."""
    path = tmp_path / "out"
    made = OutputFolder(path)
    made.check(NAMES)
    made.claim(NAMES)
    (path / "thumbnails").mkdir()
    for name in ("events.csv", "thumbnails/0001.jpg", "annotated.mp4"):
        (path / name).write_text("ours")
    made.settle()
    (path / "notes.txt").write_text("mine")
    (path / "thumbnails" / "2023-holiday.jpg").write_text("mine")
    return path


def test_a_second_run_may_replace_what_the_first_made_and_nothing_else(folder: Path) -> None:
    again = OutputFolder(folder)
    again.check(NAMES)
    assert again.own_thumbnails() == [folder / "thumbnails" / "0001.jpg"]
    assert set(json.loads((folder / RECORD).read_text())["files"]) == {
        "events.csv",
        "annotated.mp4",
        "thumbnails/0001.jpg",
    }


@pytest.mark.parametrize("name", ["events.csv", "annotated.mp4", "thumbnails/0001.jpg", "thumbnails/0002.jpg"])
def test_a_file_that_was_not_made_here_or_was_changed_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("of the user")
    with pytest.raises(DataError, match=f"{name} was not made by this program"):
        OutputFolder(folder).check(NAMES)


def test_a_file_of_the_user_is_named_where_no_run_was_before(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("of the user")
    with pytest.raises(DataError, match=r"events\.csv was not made by this program"):
        OutputFolder(tmp_path).check(NAMES)
    OutputFolder(tmp_path).check(["other.csv"])
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]


def test_a_link_or_a_folder_in_the_place_of_a_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "events.csv").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "scores.csv").mkdir()
    for name in ("events.csv", "scores.csv"):
        with pytest.raises(DataError, match="was not made by this program"):
            OutputFolder(tmp_path).check([name])


@pytest.mark.parametrize("how", ["same", "linked"])
def test_an_input_is_never_replaced_even_one_that_was_made_here(folder: Path, tmp_path: Path, how: str) -> None:
    given = folder / "annotated.mp4"
    if how == "linked":
        given = tmp_path / "given.mp4"
        given.hardlink_to(folder / "annotated.mp4")
    with pytest.raises(DataError, match=r"annotated\.mp4 is an input"):
        OutputFolder(folder).check(NAMES, [given])
    OutputFolder(folder).check(["events.csv"], [given])


def test_what_a_run_that_was_killed_left_is_known_for_ours(tmp_path: Path) -> None:
    OutputFolder(tmp_path).claim(NAMES)
    (tmp_path / "thumbnails").mkdir()
    for name in ("events.csv", "thumbnails/0001.jpg"):
        (tmp_path / name).write_text("half a run")
    OutputFolder(tmp_path).check(NAMES)


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    for text in ("not JSON", "[]", '{"made_by": "me", "files": {}}', '{"made_by": "vlmquant", "files": 3}'):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(DataError, match="not a record of this program"):
            OutputFolder(tmp_path)


def test_a_place_that_cannot_be_written_or_is_full_is_found_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        OutputFolder(tmp_path / "file" / "out").check(NAMES)
    monkeypatch.setattr(output, "_LEAST_FREE_BYTES", 2**70)
    with pytest.raises(DataError, match="make room"):
        OutputFolder(tmp_path / "new" / "out").check(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_on_the_way_is_one_sentence_that_names_the_file() -> None:
    with (
        pytest.raises(DataError, match=r"^a\.csv cannot be written \(No space left on device\)"),
        writing(Path("a.csv")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


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
