"""From names to folders, without a network."""

import json
from pathlib import Path

import huggingface_hub
import pytest

from vlmquant.checkpoints.hub import resolve
from vlmquant.errors import ModelError


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was asked of the hub; every request fails as it does without a network."""
    asked: list[tuple[str, list[str]]] = []

    def fail(name: str, *, revision: str | None, allow_patterns: list[str], etag_timeout: float) -> str:
        asked.append((name if revision is None else f"{name} at {revision}", allow_patterns))
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


@pytest.mark.parametrize("revision", ["main", "refs/pr/12", "0123abc", "v1.0"])
def test_a_revision_can_be_named(revision: str, requests: list[tuple[str, list[str]]]) -> None:
    with pytest.raises(ModelError, match=f"organisation/name@{revision}"):
        resolve(f"organisation/name@{revision}")
    assert requests[0][0] == f"organisation/name at {revision}"


def test_a_repository_of_pickles_alone_names_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ModelError, match=r"no safetensors weights.*organisation/name@REVISION.*--allow-pickle"):
        resolve("organisation/name")
    assert resolve("organisation/name", allow_pickle=True) == tmp_path


def modules(folder: Path, *named: tuple[str, str]) -> Path:
    listed = [
        {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in named
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def test_the_model_inside_a_sentence_transformers_folder_is_meant(tmp_path: Path) -> None:
    (tmp_path / "0_CLIPModel").mkdir()
    (tmp_path / "0_CLIPModel" / "config.json").write_text("{}")
    assert resolve(modules(tmp_path, ("0_CLIPModel", "CLIPModel"))) == tmp_path / "0_CLIPModel"
    assert resolve(modules(tmp_path, ("0_CLIPModel", "CLIPModel"), ("", "Normalize"))) == tmp_path / "0_CLIPModel"
    for odd in (
        (("0_CLIPModel", "CLIPModel"), ("1_Dense", "Dense")),
        (("../x", "CLIPModel"),),
        (("1", "CLIPModel"),),
        (),
    ):
        with pytest.raises(ModelError, match=r"sentence-transformers folder of .*expected one CLIP inside"):
            resolve(modules(tmp_path, *odd))
    (tmp_path / "modules.json").write_text("{}")
    with pytest.raises(ModelError, match="sentence-transformers"):
        resolve(tmp_path)
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(ModelError, match="not a list of sentence-transformers modules"):
        resolve(tmp_path)
