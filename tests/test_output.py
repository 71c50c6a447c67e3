"""Where results go: what is the user's stays, and so do inputs, bundles and checkpoints."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmquant import files
from vlmquant.errors import DataError, VlmQuantError
from vlmquant.output import RECORD, OutputFolder, results, writing

NAMES = ("events.csv", "thumbnails/", "annotated.mp4")
FIXTURES = Path(__file__).parent / "bundle" / "fixtures"


def there(path: Path, verb: str = "detect") -> OutputFolder:
    return OutputFolder(path, verb)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the results of one run, and a file of the user."""
    path = tmp_path / "out"
    with results(path, "detect", NAMES):
        (path / "thumbnails").mkdir()
        for name in ("events.csv", "thumbnails/0001.jpg", "annotated.mp4"):
            (path / name).write_text("ours")
    (path / "notes.txt").write_text("mine")
    (path / "thumbnails" / "2023-holiday.jpg").write_text("mine")
    return path


def recorded(folder: Path) -> dict[str, object]:
    found = json.loads((folder / RECORD).read_text())["files"]
    assert isinstance(found, dict)
    return found


def test_a_second_run_may_replace_what_the_first_made_and_nothing_else(folder: Path) -> None:
    again = there(folder)
    again.check(NAMES)
    assert again.own_pictures("thumbnails/") == [folder / "thumbnails" / "0001.jpg"]
    ours = {"bytes": 4, "verb": "detect"}
    assert recorded(folder) == {"events.csv": ours, "annotated.mp4": ours, "thumbnails/0001.jpg": ours}


@pytest.mark.parametrize("name", ["events.csv", "annotated.mp4", "thumbnails/0001.jpg", "thumbnails/0002.jpg"])
def test_a_file_that_was_not_made_here_or_was_changed_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("of the user")
    with pytest.raises(DataError, match=f"{name} was not made by this program"):
        there(folder).check(NAMES)


def test_pictures_that_are_an_input_are_not_replaced(folder: Path) -> None:
    with pytest.raises(DataError, match=r"would become part of the input folder .*thumbnails"):
        there(folder).check(NAMES, [folder / "thumbnails"])


def test_what_another_verb_made_is_named_with_it(folder: Path) -> None:
    with pytest.raises(DataError, match=r"events\.csv was made by `vlmquant detect` and would be replaced"):
        there(folder, "report").check(["events.csv"])
    assert there(folder, "report").own_pictures("thumbnails/") == []


def test_a_file_that_was_changed_stays_the_users_after_a_run_that_does_not_write_it(folder: Path) -> None:
    (folder / "annotated.mp4").write_text("of the user")
    with results(folder, "detect", ["events.csv"]):
        (folder / "events.csv").write_text("again")
    with pytest.raises(DataError, match=r"annotated\.mp4 was not made by this program"):
        there(folder).check(NAMES)


def test_runs_side_by_side_keep_each_others_entries(tmp_path: Path) -> None:
    first, second = there(tmp_path, "caption"), there(tmp_path, "caption")
    for run, name in ((first, "a.csv"), (second, "b.csv")):
        run.check([name])
        run.claim([name])
        (tmp_path / name).write_text("ours")
    first.settle()
    assert recorded(tmp_path) == {
        "a.csv": {"bytes": 4, "verb": "caption"},
        "b.csv": {"bytes": None, "verb": "caption"},
    }
    second.settle()
    there(tmp_path, "caption").check(["a.csv", "b.csv"])


def test_a_record_of_an_older_version_is_read(folder: Path) -> None:
    (folder / RECORD).write_text(json.dumps({"made_by": "vlmquant", "files": {"events.csv": 4, "annotated.mp4": None}}))
    there(folder).check(["events.csv", "annotated.mp4"])


def test_a_file_of_the_user_is_named_where_no_run_was_before(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("of the user")
    with pytest.raises(DataError, match=r"events\.csv was not made by this program"):
        there(tmp_path).check(NAMES)
    there(tmp_path).check(["other.csv"])
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]


def test_a_link_or_a_folder_in_the_place_of_a_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "events.csv").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "broken.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "scores.csv").mkdir()
    for name in ("events.csv", "broken.csv", "scores.csv"):
        with pytest.raises(DataError, match="was not made by this program"):
            there(tmp_path).check([name], [tmp_path / "elsewhere"] if name == "broken.csv" else [])


@pytest.mark.parametrize("how", ["same", "linked"])
def test_an_input_is_never_replaced_even_one_that_was_made_here(folder: Path, tmp_path: Path, how: str) -> None:
    given = folder / "annotated.mp4"
    if how == "linked":
        given = tmp_path / "given.mp4"
        given.hardlink_to(folder / "annotated.mp4")
    with pytest.raises(DataError, match=r"annotated\.mp4 is an input"):
        there(folder).check(NAMES, [given])
    there(folder).check(["events.csv"], [given])


def test_nothing_is_put_into_an_input_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for output in (data, data / "run", data / "run" / "a", tmp_path / "link" / "run"):
        with pytest.raises(DataError, match="would become part of the input folder"):
            there(output).check(NAMES, [data])
    for output in (tmp_path, tmp_path / "data-run"):
        there(output).check(NAMES, [data, tmp_path / "nowhere", Path("hub:cifar10")])


def bundle_of_today(folder: Path, tiny_bundle: Path) -> None:
    shutil.copy(tiny_bundle / "manifest.json", folder)


def bundle_of(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, _: shutil.copy(FIXTURES / name, folder / "manifest.json")


@pytest.mark.parametrize(
    "make", [bundle_of_today, bundle_of("schema-1-manifest.json"), bundle_of("schema-2-clip/manifest.json")]
)
def test_nothing_is_put_into_a_bundle(make: Callable[[Path, Path], None], tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    make(tmp_path / "bundle", tiny_bundle)
    for output in (tmp_path / "bundle", tmp_path / "bundle" / "a" / "b"):
        with pytest.raises(DataError, match=r"would become part of the bundle .*bundle, which then fails its check"):
            there(output).check(NAMES)
    there(tmp_path / "beside").check(NAMES)


@pytest.mark.parametrize("weights", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_nothing_is_put_among_the_weights_of_a_checkpoint(tmp_path: Path, weights: str) -> None:
    for name in ("config.json", weights):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="among the weights of a checkpoint"):
        there(tmp_path).check(NAMES)
    there(tmp_path / "deeper").check(NAMES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"manifest_version": 3, "name": "an extension of a browser"}'),
        ("manifest.json", '{"schema_version": 1, "files": {}}'),
        ("manifest.json", '["a", "list"]'),
        ("manifest.json", "not JSON"),
        ("config.json", '{"settings": "of something else"}'),
        ("other.safetensors", ""),
    ],
)
def test_other_programs_have_such_files_too(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    there(tmp_path).check(NAMES)


def test_what_a_run_that_was_killed_left_is_known_for_ours(tmp_path: Path) -> None:
    there(tmp_path).claim(NAMES)
    (tmp_path / "thumbnails").mkdir()
    for name in ("events.csv", "thumbnails/0001.jpg"):
        (tmp_path / name).write_text("half a run")
    there(tmp_path).check(NAMES)


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    for text in (
        "not JSON",
        "[]",
        '{"made_by": "me", "files": {}}',
        '{"made_by": "vlmquant", "files": 3}',
        '{"made_by": "vlmquant", "files": {"a": {"size": 3}}}',
    ):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(DataError, match="not a record of this program"):
            there(tmp_path)


def test_a_place_that_cannot_be_written_or_is_full_is_found_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VlmQuantError, match="Not a directory"):
        there(tmp_path / "file" / "out").check(NAMES)
    with pytest.raises(VlmQuantError, match="File name too long"):
        there(tmp_path / ("n" * 300)).check(NAMES)
    monkeypatch.setattr(files, "LEAST_FREE_BYTES", 2**70)
    with pytest.raises(VlmQuantError, match="make room"):
        there(tmp_path / "new" / "out").check(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_on_the_way_is_one_sentence_that_names_the_file() -> None:
    with (
        pytest.raises(DataError, match=r"^a\.csv cannot be written \(No space left on device\)"),
        writing(Path("a.csv")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
