"""From names to folders, without a network."""

from pathlib import Path

import huggingface_hub
import pytest

from vlmquant.checkpoints.hub import resolve
from vlmquant.errors import ModelError


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was asked of the hub; every request fails as it does without a network."""
    asked: list[tuple[str, list[str]]] = []

    def fail(name: str, *, allow_patterns: list[str], etag_timeout: float) -> str:
        asked.append((name, allow_patterns))
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    return asked


def test_a_local_folder_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: list[object]
) -> None:
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("openai/clip") == Path("openai/clip")
    assert requests == []


@pytest.mark.parametrize("name", ["./org/name", "/no/such/folder", "a/b/c", "clip", "../x", "org/", "~/clip-absent"])
def test_what_cannot_be_a_hub_id_is_not_looked_up(name: str, requests: list[object]) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve(name)
    assert requests == []


def test_a_path_object_is_never_a_hub_id(requests: list[object]) -> None:
    with pytest.raises(ModelError, match="no folder"):
        resolve(Path("org/name"))
    assert requests == []


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="pass the folder"):
        resolve(str(tmp_path / "model.safetensors"))


def test_without_a_network_the_error_says_how_to_pass_a_folder(requests: list[tuple[str, list[str]]]) -> None:
    with pytest.raises(ModelError, match=r"Name or service not known.*vlmquant quantize path/to/folder"):
        resolve("organisation/name")
    assert requests[0][0] == "organisation/name"


def test_pickles_are_fetched_only_when_asked_for(requests: list[tuple[str, list[str]]]) -> None:
    for allow_pickle in (False, True):
        with pytest.raises(ModelError):
            resolve("organisation/name", allow_pickle=allow_pickle)
    assert [any("bin" in pattern for pattern in patterns) for _, patterns in requests] == [False, True]
