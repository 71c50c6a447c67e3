"""`vlmquant detect` on small street videos."""

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import streetworld
from fakes import tiny_blip_folder
from vlmquant.cli import main
from vlmquant.errors import VideoError
from vlmquant.files import alone
from vlmquant.models.spec import ImageSpec
from vlmquant.video.events import EventRule


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


def test_without_the_drawing_libraries_all_but_the_page_is_written(
    run, video: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmquant.report.drawing.NEEDED", ("jinja2", "no_such_library"))
    code, out, err = run("detect", video, "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    (note,) = json.loads(out)["videos"][0]["notes"]
    assert note == (
        "the page and the timeline are left out: no_such_library is not installed (pip install 'vlmquant[report]')"
    )
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"events.jsonl", "events.csv", "scores.csv", "events.vtt", "annotated.mp4"}
    assert not files & {"timeline.png", "index.html"}


def test_without_the_demonstration_models_a_model_must_be_named(
    run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "streetworld", None)
    code, _, err = run("detect", video, "-e", "a dog", "-o", tmp_path / "out")
    assert code == 2
    assert "name one (-m), or install them: pip install 'vlmquant[demo]'" in err


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


@pytest.mark.parametrize(
    ("words", "on", "off"),
    [(("--on", "0.5"), 0.5, 0.5), (("--on", "0.9"), 0.9, 0.6), (("--off", "0.9"), 0.9, 0.9), (("--off", "0"), 0.8, 0)],
)
def test_one_threshold_alone_takes_the_other_along(words, on: float, off: float) -> None:
    given = {words[0].removeprefix("--"): float(words[1])}
    rule = EventRule().changed(**given)
    assert (rule.on, rule.off) == (on, off)


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever model is named is one that takes any picture for anything."""
    monkeypatch.setattr("vlmquant.cli.detect.open_named", lambda *_, **__: AnyOpened())


class AnyOpened:
    notes = ()

    @property
    def facts(self):
        return {"weights": "0" * 64}

    @property
    def encoder(self):
        return AnyEncoder()


class AnyEncoder:
    name = "any"
    logit_scale = 1.0
    image_spec = ImageSpec(
        shortest_edge=8,
        resize_height=None,
        resize_width=None,
        resample=2,
        crop_height=8,
        crop_width=8,
        rescale_factor=1 / 255,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 1), np.float32)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return np.ones((len(pixels), 1), np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 6)


def make_clip(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(frames):
            picture = np.full((48, 64, 3), level % 7 * 40, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


EVERYTHING = ("--on", "0", "--off", "0", "--min-duration", "0")


def test_results_never_replace_an_input_or_a_file_of_the_user(run, fake_model, clip: Path, tmp_path) -> None:
    own = tmp_path / "own" / "annotated.mp4"
    own.parent.mkdir()
    own.write_bytes(clip.read_bytes())
    code, _, err = run("detect", own, "-m", "no such model", "-e", "a dog", "-o", own.parent)
    assert (code, "annotated.mp4 is an input" in err) == (2, True)
    assert own.read_bytes() == clip.read_bytes()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    code, _, err = run("detect", clip, "-m", "no such model", "-e", "a dog", "-o", tmp_path / "site")
    assert (code, "index.html was not made by this program" in err) == (2, True)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]


def test_a_second_run_replaces_the_first_and_keeps_other_files(run, fake_model, clip: Path, tmp_path) -> None:
    out = tmp_path / "out"
    (out / "thumbnails").mkdir(parents=True)
    (out / "thumbnails" / "2023-holiday.jpg").write_text("mine")
    words = ("detect", clip, "-o", out)
    assert run(*words, "-e", "a dog", "-e", "a cat", *EVERYTHING)[0] == 0
    assert {path.name for path in (out / "thumbnails").iterdir()} == {"0001.jpg", "0002.jpg", "2023-holiday.jpg"}
    code, _, err = run(*words, "-e", "a dog", *EVERYTHING)
    assert code == 0, err
    assert {path.name for path in (out / "thumbnails").iterdir()} == {"0001.jpg", "2023-holiday.jpg"}
    page = (out / "index.html").read_text()
    for name in ("events.jsonl", "events.csv", "events.vtt", "scores.csv", "annotated.mp4"):
        assert f'href="{name}"' in page


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_writes(run, fake_model, clip, tmp_path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    words = ("detect", clip, "--event", "a dog", "-o", output, "--no-annotate")
    with alone(output, lock=output / ".detect.lock"):
        code, _, err = run(*words)
    assert code == 2
    assert f"another run is writing to '{output}'" in err
    assert run(*words)[0] == 0
    assert not (output / ".detect.lock").exists()


def test_two_videos_of_one_name_keep_their_results_apart(run, fake_model, clip: Path, tmp_path: Path) -> None:
    videos = [tmp_path / parent / "cam.mp4" for parent in "ab"]
    for path in videos:
        path.parent.mkdir()
        path.write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    code, _, err = run("detect", *videos, "-e", "a dog", "-o", out, "--no-annotate")
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["a_cam.mp4", "b_cam.mp4"]
    assert all((folder / "index.html").is_file() for folder in out.iterdir())


def test_names_are_shown_as_they_are(run, fake_model, clip: Path, tmp_path: Path) -> None:
    video = tmp_path / "[cam1] $x^$ \x1b[2J\udce9.mp4"
    video.write_bytes(clip.read_bytes())
    event = "=a dog [/b] $y$ \x1b]0;x\x07"
    code, out, err = run("detect", video, "-e", event, "-o", tmp_path / "out", *EVERYTHING)
    assert code == 0, err
    assert "[cam1] $x^$ \\x1b[2J\\udce9.mp4: 1 event in 1.2 s" in out
    assert "=a dog [/b] $y$ \\x1b]0;x\\x07" in out
    assert "\x1b" not in out
    assert "\x1b" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_an_annotated_copy_that_fails_spoils_nothing(run, fake_model, clip, tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise VideoError("no such luck")

    monkeypatch.setattr("vlmquant.report.searched.write_mp4", fail)
    code, out, err = run("detect", clip, "-e", "a dog", "-o", tmp_path, "--json")
    assert code == 0, err
    result = json.loads(out)["videos"][0]
    assert result["notes"] == ["the annotated copy is left out: no such luck"]
    assert "annotated" not in result["files"]
    assert "no such luck" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x" * 300 + ".mp4",), "too long"),
        (("http://127.0.0.1/a.mp4",), "http://127.0.0.1/a.mp4 is an address"),
        (("CLIP", "--fps", "1e308"), "frames per second"),
        (("CLIP", "--fps", "nan"), "frames per second"),
        (("CLIP", "--stream", "7"), "no picture in stream 7"),
        (("CLIP", "CLIP"), "more than once"),
        (("CLIP", "-e", "a dog"), "names must differ"),
        (("CLIP", "--events-file", "none.toml"), "none.toml cannot be read"),
        (("CLIP", "-e", "..."), "no words"),
    ],
)
def test_mistakes_are_one_sentence_before_any_work(run, clip: Path, tmp_path: Path, words, said: str) -> None:
    given = [str(clip) if word == "CLIP" else word for word in words]
    code, _, err = run("detect", *given, "-m", "no such model", "-e", "a dog", "-o", tmp_path / "out")
    assert (code, err.count("\n"), err.startswith("error: ")) == (2, 1, True)
    assert said in err
    assert not (tmp_path / "out").exists()


def test_events_of_a_file_follow_their_own_rules_and_embeddings_are_kept(run, fake_model, clip, tmp_path) -> None:
    events = tmp_path / "events.toml"
    events.write_text('[[event]]\nname = "never"\non = 0.9\n[[event]]\nname = "always"\non = 0.1\noff = 0.1\n')
    out = tmp_path / "out"
    code, text, err = run("detect", clip, "--events-file", events, "--keep-embeddings", "-o", out, "--json")
    assert code == 0, err
    (found,) = json.loads(text)["videos"][0]["events"]
    assert (found["name"], found["start_seconds"]) == ("always", 0.0)
    table = np.load(out / "embeddings.npy")
    facts = json.loads((out / "embeddings.json").read_text())
    assert table["embedding"].shape == (facts["rows"], facts["dimension"]) == (6, 1)
    assert (facts["model"], facts["model_sha256"]) == ("any", "0" * 64)
    page = (out / "index.html").read_text()
    assert "begins at 0.9, ends below 0.6 (never); begins at 0.1, ends below 0.1 (always)" in page
    assert 'href="embeddings.npy"' in page


def test_too_little_memory_is_said(run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("vlmquant.cli.detect.open_named", no_memory)
    code, _, err = run("detect", clip, "-e", "a dog", "-o", tmp_path / "out")
    assert (code, err.startswith("error: there is not enough memory")) == (2, True)


def test_a_run_that_is_ended_leaves_no_hidden_file(run, fake_model, tmp_path, monkeypatch) -> None:
    """What a signal does to the program, `test_failures` shows in a process of its own: it exits so."""
    clip = make_clip(tmp_path / "clip.mp4", 90)

    def interrupted(items, description, total=None):
        for number, item in enumerate(items):
            yield item
            if description == "writing the annotated video" and number == 80:
                assert (tmp_path / ".annotated.mp4.unfinished").exists()
                sys.exit(143)

    monkeypatch.setattr("vlmquant.cli.show.tracker", lambda _: interrupted)
    code, *_ = run("detect", clip, "-e", "a dog", "-o", tmp_path)
    assert code == 143
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


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
