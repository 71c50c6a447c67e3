"""The event-detection source, run again on a tiny CLIP and a short drawn video."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import streetworld
from vlmquant.bench.environment import this_environment
from vlmquant.cli.app import make_app
from vlmquant.errors import DataError, EngineError, VlmQuantError
from vlmquant.files import alone
from vlmquant.lab.reproduce import kept as keeping
from vlmquant.lab.reproduce import turns as in_turn
from vlmquant.lab.reproduce.event_detection import evaluation as source
from vlmquant.lab.reproduce.event_detection.frames_worker import DYNAMIC, FLOAT, OURS
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.lab.reproduce.outcome import Chart
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.run import REPRODUCTIONS, reproduce
from vlmquant.output import RECORD
from vlmquant.report.reproduction import reproduction_page, write_reproduction

FRAMES = 8


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "street.mp4"
    return streetworld.write_video(path, streetworld.script_video(0, seconds=5, size=(128, 96)))


def seen(shift: float = 0.0, milliseconds: float = 10.0, **more: Any) -> dict[str, Any]:
    """What one turn of one contender answers: two frames, three concepts, one event."""
    return {
        "model": "made up",
        "pts_seconds": [0.0, 0.2],
        "scores": [[0.9 - shift, 0.5, 0.1], [0.4 - shift, 0.3, 0.1]],
        "latency_ms": [milliseconds, milliseconds],
        "events": [["a person walking", shift, 1.0]],
        "wall_seconds": 2 * milliseconds / 1000,
        "peak_rss_bytes": 3_000_000,
        "bytes_on_disk": 2_000_000,
        "float32_bytes": 3_000_000,
        **more,
    }


def test_it_runs_whole_goes_on_where_it_was_and_gives_one_page(
    tiny_checkpoint: Path, video: Path, tmp_path: Path, turns_taken: list[str]
) -> None:
    request = ReproductionRequest(
        output=tmp_path / "run", data=video, checkpoint=str(tiny_checkpoint), limit=FRAMES, rounds=1, threads=1
    )
    with pytest.raises(KeyboardInterrupt):
        reproduce("event-detection", request)
    found = reproduce("event-detection", request)
    assert turns_taken == [FLOAT, DYNAMIC, DYNAMIC, OURS]
    assert (found.computed, found.steps) == (2, 4)
    assert found.stand_ins == ()
    assert [len(x) for chart in found.charts if isinstance(chart, Chart) for x, _ in chart.lines.values()] == [
        FRAMES
    ] * 12
    rows = {row.what: row for row in found.rows}
    assert rows["INT8, times as fast"].printed == "1.41"
    assert float(rows["INT8, MB on disk"].ours) < float(rows["FP32, MB on disk"].its_method)
    again = reproduce("event-detection", request)
    assert (again.computed, again.rows) == (0, found.rows)

    written = write_reproduction(tmp_path / "run", found)
    assert json.loads(written[0].read_text())["rows"][0]["what"] == "FP32, ms a frame"
    assert "57.9" in written[1].read_text()
    assert (tmp_path / "run" / RECORD).is_file()


def test_what_decides_a_step_is_its_key(tmp_path: Path) -> None:
    def once(key: dict[str, Any], value: int) -> Any:
        return Kept(tmp_path, key).once("a step", lambda: {"value": value})["value"]

    assert once({"limit": 1}, 1) == once({"limit": 1}, 2) == 1
    assert once({"limit": 2}, 3) == 3
    (step, _) = sorted(tmp_path.rglob("a-step.json"))
    step.write_text("{")
    with pytest.raises(DataError, match=r"a-step\.json is not a finished step"):
        [once({"limit": limit}, 0) for limit in (1, 2)]


def test_a_step_whose_work_was_deleted_is_done_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, {})
    made = kept.place / "bundle"

    def work() -> dict[str, Any]:
        made.mkdir()
        return {}

    kept.once("bundle", work, made=made)
    kept.once("bundle", work, made=made)
    made.rmdir()
    kept.once("bundle", work, made=made)
    assert (made.is_dir(), kept.computed) == (True, 2)


def test_steps_of_other_packages_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Kept(tmp_path, {}).place
    here = this_environment()
    monkeypatch.setattr(keeping, "this_environment", lambda: replace(here, packages={"torch": "1.0"}))
    assert Kept(tmp_path, {}).place != before


def test_two_runs_into_one_folder_would_spoil_each_others_times(tmp_path: Path) -> None:
    with alone((tmp_path / "run").resolve()), pytest.raises(VlmQuantError, match="another run is writing to"):
        reproduce("event-detection", ReproductionRequest(output=tmp_path / "run"))


def test_figures_are_those_of_the_turns() -> None:
    turns = {
        FLOAT: [seen(), seen(milliseconds=30.0)],
        DYNAMIC: [seen(0.45, 5.0, parameter_bytes=500_000), seen(0.45, 10.0, parameter_bytes=500_000)],
        OURS: [seen(0.001, 2.5), seen(0.001, 5.0)],
    }
    rows = {row.what: row for row in source.rows(turns)}
    assert rows["INT8, times as fast"].its_method == "2.50 (2.00 to 3.00 by turn)"
    assert rows["INT8, times as fast"].ours == "5.00 (4.00 to 6.00 by turn)"
    assert rows["INT8, latency saved"].ours == "80.0 %"
    assert rows["frames whose likeliest concept is FP32's"].its_method == "0.0 %"
    assert rows["frames whose likeliest concept is FP32's"].ours == "100.0 %"
    assert rows["largest change of a probability"].its_method == "0.450"
    found_again = "events of FP32 found again / missed / new (overlap of half)"
    assert (rows[found_again].its_method, rows[found_again].ours) == ("1 / 0 / 0", "1 / 0 / 0")
    assert "0.5 MB here" in rows["INT8, MB on disk"].remark
    assert "the weights in float32 have 3.0 MB" in rows["FP32, MB on disk"].remark


def test_the_help_names_every_source() -> None:
    page = " ".join(CliRunner().invoke(make_app(), ["reproduce", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert ", ".join(REPRODUCTIONS) in page


def test_what_cannot_be_run_is_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown source 'papers'; known: .*event-detection"):
        reproduce("papers", ReproductionRequest(output=tmp_path))
    with pytest.raises(DataError, match="is not a video file"):
        reproduce("event-detection", ReproductionRequest(output=tmp_path, data=tmp_path))
    with pytest.raises(DataError, match="rounds must be at least 1, got 0"):
        ReproductionRequest(output=tmp_path, rounds=0)
    with pytest.raises(EngineError, match=r"static-int8 failed: .*nowhere"):
        in_turn.in_its_own_process(
            source.WORKER, {"contender": OURS, "bundle": str(tmp_path / "nowhere"), "threads": 1}, 60
        )


def test_the_page_says_that_stand_ins_stood_in(tiny_checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(in_turn, "in_its_own_process", lambda *_: seen(parameter_bytes=1))
    monkeypatch.setattr(source, "_quantize", lambda *_: {})
    found = reproduce("event-detection", ReproductionRequest(output=tmp_path, rounds=1))
    assert len(found.stand_ins) == 2
    assert "stand-ins" in reproduction_page(found).subtitle
