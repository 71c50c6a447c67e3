"""`vlmquant detect` on small street videos."""

import json
import sys
from pathlib import Path

import pytest

from fakes import tiny_blip_folder
from vlmquant import streetworld
from vlmquant.cli import main


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "street.mp4"
    streetworld.write_video(path, streetworld.script_video(0, seconds=5))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_a_bundle_finds_and_writes(run, video: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    code, out, err = run("detect", video, "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    result = json.loads(out)["videos"][0]
    assert result["frames"] == 25
    assert result["video_seconds"] == pytest.approx(5.0)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {
        "events.jsonl",
        "events.csv",
        "scores.csv",
        "events.vtt",
        "timeline.png",
        "annotated.mp4",
        "index.html",
    }


def test_a_checkpoint_is_quantized_on_first_use_and_kept(
    run, video: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    words = ("detect", video, "-m", tiny_checkpoint, "-e", "a dog", "-o", tmp_path / "out", "--no-annotate", "--json")
    code, out, err = run(*words)
    assert code == 0, err
    notes = " ".join(json.loads(out)["notes"])
    assert "quantized" in notes
    assert "frames sampled from street.mp4" in notes
    kept = list((tmp_path / "cache").rglob("manifest.json"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    code, out, err = run(*words)
    assert code == 0, err
    assert "first use" not in out
    assert kept[0].stat().st_mtime_ns == before


def test_float_runs_unquantized_and_says_so(run, video: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "detect",
        video,
        "-m",
        tiny_checkpoint,
        "--float",
        "-e",
        "a dog",
        "-o",
        tmp_path / "o",
        "--no-annotate",
        "--json",
    )
    assert code == 0, err
    assert "unquantized" in " ".join(json.loads(out)["notes"])
    assert not (tmp_path / "cache").exists()


def test_without_a_model_the_demonstration_model_runs_and_says_so(run, video: Path, tmp_path: Path) -> None:
    code, out, err = run("detect", video, "-e", "a bus", "-o", tmp_path / "out", "--no-annotate", "--json")
    assert code == 0, err
    assert "demonstration model" in " ".join(json.loads(out)["notes"])


def test_thresholds_out_of_order_are_a_user_error(run, video: Path, tiny_bundle: Path) -> None:
    code, _, err = run("detect", video, "-m", tiny_bundle, "-e", "a dog", "--on", "0.2", "--off", "0.8")
    assert code == 2
    assert err.startswith("error: ")
    assert "0.8" in err


def test_a_bundle_cannot_run_as_float(run, video: Path, tiny_bundle: Path) -> None:
    code, _, err = run("detect", video, "-m", tiny_bundle, "-e", "a dog", "--float")
    assert code == 2
    assert "--float" in err


def test_a_captioner_finds_no_events_and_says_what_it_does(run, video: Path, tmp_path: Path) -> None:
    captioner = tiny_blip_folder(tmp_path / "captions", "captioning")
    code, out, err = run("detect", video, "-m", captioner, "-e", "a dog", "-o", tmp_path / "out")
    assert code == 2
    assert "is a captioner, which writes captions" in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_float_and_an_engine_contradict_each_other(run, video: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ("detect", video, "-m", tiny_checkpoint, "-e", "a dog", "-o", tmp_path / "out", "--float")
    code, _, err = run(*words, "--engine", "openvino")
    assert (code, "--float runs in torch" in err) == (2, True)
