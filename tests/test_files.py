from pathlib import Path

import pytest

from vlmquant.files import write_whole


def test_text_and_bytes_arrive_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_whole(path, "größer\n") == path
    assert path.read_bytes() == "größer\n".encode()
    write_whole(path, b"\x00\n")
    assert path.read_bytes() == b"\x00\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "a.txt", "old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("vlmquant.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
