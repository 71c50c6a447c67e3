"""Nothing is half-written, nobody else's files are replaced, and dead runs leave nothing in the way."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmquant.errors import VlmQuantError
from vlmquant.files import new_folder, parse_json, write_whole


class Taken(VlmQuantError):
    pass


def refuse(output: Path) -> None:
    if output.exists():
        raise Taken(output.name)


def allow(output: Path) -> None:
    """Anything may be replaced."""


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    with new_folder(output, refuse) as folder:
        (folder / "a").write_text("1")
        assert not output.exists()
    assert (output / "a").read_text() == "1"
    with pytest.raises(RuntimeError), new_folder(tmp_path / "other", refuse):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "deep", "out"]


def test_a_folder_of_the_users_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "mine"

    def appear(folder: Path) -> None:
        (folder / "a").write_text("1")
        output.mkdir()
        (output / "thesis.txt").write_text("years")

    with pytest.raises(Taken), new_folder(output, refuse) as folder:
        appear(folder)
    assert (output / "thesis.txt").read_text() == "years"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_may_be_replaced_is_replaced_whole(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").write_text("0")
    with new_folder(output, allow) as folder:
        (folder / "new").write_text("1")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_link_stays_a_link_to_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link", allow) as folder:
        (folder / "new").write_text("1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").read_text() == "1"


def test_two_runs_with_one_output_are_told_apart_before_any_work(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with new_folder(output, refuse) as folder:
        with pytest.raises(VlmQuantError, match="another run"), new_folder(output, refuse):
            pytest.fail("the second run must not begin")
        (folder / "a").write_text("1")
    assert (output / "a").read_text() == "1"


def test_what_a_killed_run_left_is_cleared_away_even_under_the_same_process_id(tmp_path: Path) -> None:
    for name in (f".out.{os.getpid()}.tmp", ".out.1.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    (tmp_path / ".out.lock").write_text("")
    (tmp_path / ".out.notes.tmp").mkdir()  # not a name of ours
    with new_folder(tmp_path / "out", refuse) as folder:
        assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.notes.tmp", "out"]


def test_a_swap_that_was_cut_short_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".out.7.old.tmp").mkdir()
    (tmp_path / ".out.7.old.tmp" / "good").write_text("1")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", allow):
        raise RuntimeError
    assert (tmp_path / "out" / "good").read_text() == "1"


def test_a_run_that_dies_lets_go_of_its_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from vlmquant.files import new_folder\n"
        "with new_folder(Path(sys.argv[1]), lambda _: None): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    with new_folder(tmp_path / "out", refuse) as folder:
        (folder / "a").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_no_folder_can_be_made_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(VlmQuantError, match="choose another"), new_folder(tmp_path / "afile" / "out", refuse):
        pytest.fail("there is nowhere to write to")


def test_text_and_bytes_arrive_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_whole(path, "größer\n") == path
    assert path.read_bytes() == "größer\n".encode()
    write_whole(path, b"\x00\n")
    assert path.read_bytes() == b"\x00\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_whole_over_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").write_text("half of something longer")
    write_whole(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("content", ["[" * 100_000, "{", b"\xff\xfe\xfd", ""])
def test_json_that_is_none_is_one_kind_of_error(content: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


def test_folders_made_on_the_way_go_again_where_nothing_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "old" / "a" / "b" / "out", allow):
        raise RuntimeError
    assert not list((tmp_path / "old").iterdir())
    with new_folder(tmp_path / "old" / "a" / "out", allow):
        pass
    assert [path.name for path in (tmp_path / "old" / "a").iterdir()] == ["out"]


def test_a_full_disk_is_a_sentence_that_names_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(VlmQuantError, match=f"cannot write '{tmp_path}/out': its disk is full; make room"),
        new_folder(tmp_path / "out", allow),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), new_folder(tmp_path / "out", allow):
        raise PermissionError(errno.EACCES, "Permission denied")
