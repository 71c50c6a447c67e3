"""The blip-int8 source, run again on a tiny BLIP and a few drawn pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from fakes import tiny_blip_folder
from vlmquant.data.images import ArchiveImage, EncodedImage, FileImage, LazyImages
from vlmquant.errors import DataError, EngineError, ModelError
from vlmquant.lab.reproduce import turns as in_turn
from vlmquant.lab.reproduce.blip_int8 import evaluation as source
from vlmquant.lab.reproduce.blip_int8.caption_figures import rows
from vlmquant.lab.reproduce.blip_int8.captions_worker import DYNAMIC, FLOAT, HALF, OURS, caption, pictures, places
from vlmquant.lab.reproduce.outcome import Chart
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.run import reproduce
from vlmquant.lab.reproduce.samples import picked
from vlmquant.report.reproduction import reproduction_page, write_reproduction

PICTURES, SCORED = 11, 2


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip_folder(tmp_path_factory.mktemp("tiny") / "blip", "captioning")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise with two captions each, in COCO's form."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "val2017").mkdir()
    (folder / "annotations").mkdir()
    names = [f"{number:012d}.png" for number in range(PICTURES)]
    for name, pixels in zip(
        names, np.random.default_rng(0).integers(0, 256, (PICTURES, 40, 48, 3), np.uint8), strict=True
    ):
        PillowImage.fromarray(pixels).save(folder / "val2017" / name)
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": 2 * number + more, "image_id": number, "caption": f"noise of kind {number} seen {more} times"}
            for number in range(PICTURES)
            for more in (0, 1)
        ],
    }
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    return folder


def written(*captions: str, seconds: float = 0.2, **more: Any) -> dict[str, Any]:
    """What one turn of one contender answers."""
    return {
        "model": "made up",
        "captions": list(captions),
        "seconds": [seconds] * len(captions),
        "wall_seconds": seconds * len(captions),
        "peak_rss_bytes": 3_000_000,
        "bytes_on_disk": 2_000_000,
        "float32_bytes": 2_000_000,
        **more,
    }


def test_it_runs_whole_goes_on_where_it_was_and_gives_one_page(
    blip: Path, coco: Path, tmp_path: Path, turns_taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ReproductionRequest(
        output=tmp_path / "run", data=coco, checkpoint=str(blip), limit=SCORED, rounds=1, threads=1
    )
    monkeypatch.setattr(source, "_contenders", lambda: (FLOAT, DYNAMIC, OURS))
    with pytest.raises(KeyboardInterrupt):
        reproduce("blip-int8", request)
    found = reproduce("blip-int8", request)
    assert turns_taken == [FLOAT, DYNAMIC, DYNAMIC, OURS]
    assert (found.computed, found.steps) == (2, 4)
    assert found.stand_ins == ()
    assert found.facts["Data"].endswith(f"the first {SCORED} of {PICTURES} pictures")
    assert found.facts["Calibrated on"] == "9 pictures of captions_val2017 that are not scored"
    assert "vision=static-int8, decoder=static-int8" in found.facts["Recipes of static-int8"]
    assert [len(x) for chart in found.charts if isinstance(chart, Chart) for x, _ in chart.lines.values()] == [
        SCORED
    ] * 3
    by_name = {row.what: row for row in found.rows}
    assert by_name["INT8, times as fast"].printed == "1.6"
    assert by_name["INT8, captions equal to FP32's"].ours.endswith(f" of {SCORED}")
    assert by_name["float16 on CUDA, seconds an image, median"].its_method == "not run: no CUDA here"
    again = reproduce("blip-int8", request)
    assert (again.computed, again.rows) == (0, found.rows)
    page = write_reproduction(tmp_path / "run", found)[1].read_text()
    assert "248 is 990 / 4" in page


def test_torch_dynamic_int8_is_integers_and_writes(blip: Path, coco: Path) -> None:
    images = source.captioned(coco).images
    request = {"checkpoint": str(blip), "threads": 1, "pictures": places(images)[:SCORED]}
    float32, dynamic = (caption({**request, "contender": name}) for name in (FLOAT, DYNAMIC))
    assert len(dynamic["captions"]) == len(dynamic["seconds"]) == SCORED
    assert all(dynamic["captions"])
    assert DYNAMIC in dynamic["model"]
    assert dynamic["bytes_on_disk"] < 0.7 * float32["float32_bytes"] < float32["bytes_on_disk"]


def test_figures_are_those_of_the_turns(coco: Path) -> None:
    data = picked(source.captioned(coco), np.arange(SCORED))
    good = "noise of kind 0 seen 0 times", "noise of kind 1 seen 1 times"
    turns = {
        FLOAT: [written(*good), written(*good, seconds=0.6)],
        DYNAMIC: [written(good[0], "a red bus", seconds=0.1), written(*good, seconds=0.2)],
        OURS: [written(*good, seconds=0.05), written(*good, seconds=0.1)],
    }
    found = {row.what: row for row in rows(turns, data)}
    fast = found["INT8, times as fast"]
    assert (fast.its_method, fast.ours) == ("2.50 (2.00 to 3.00 by turn)", "5.00 (4.00 to 6.00 by turn)")
    assert found["INT8, images a second"].ours == "15"
    assert found["FP32, BLEU-4"].its_method == found["INT8, BLEU-4"].ours == "1.000"
    assert found["INT8, BLEU-4, change"].printed == "-2.9 %"
    assert found["INT8, BLEU-4, change"].ours == "+0.000 [+0.000, +0.000], +0.0 %"
    assert found["INT8, CIDEr, change"].its_method.startswith("-")
    nothing = rows({name: [written("", "")] for name in turns}, data)
    assert next(row for row in nothing if row.what == "INT8, BLEU-4, change").ours == "+0.000 [+0.000, +0.000]"
    equal = found["INT8, captions equal to FP32's"]
    assert (equal.its_method, equal.ours) == ("1 of 2", "2 of 2")
    assert found["FP32, MB on disk"].remark == ""
    notes = source._notes(turns, {"on_scored": True}, data)
    assert any("calibrated on the scored pictures" in note for note in notes)
    assert any(note.startswith(f"{DYNAMIC} did not write the same captions in every turn") for note in notes)

    half = {row.what: row for row in rows({**turns, HALF: [written(*good, seconds=0.01)] * 2}, data)}
    assert half["float16 on CUDA, seconds an image, median"].its_method == "0.01"
    assert half["float16 on CUDA, CIDEr, change"].its_method.startswith("+0.000")
    small = {row.what: row for row in rows({**turns, FLOAT: [written(*good, bytes_on_disk=1_000_000)] * 2}, data)}
    assert "the weights in float32 have 2.0 MB" in small["FP32, MB on disk"].remark


def test_calibration_keeps_away_from_the_scored_pictures_where_it_can(coco: Path, tmp_path: Path) -> None:
    asked, data = ReproductionRequest(output=tmp_path, data=coco), source.captioned(coco)
    others, on_scored = source._calibration(asked, data, PICTURES - 8)
    assert not on_scored
    assert others.images.ids == data.ids[-8:]  # type: ignore[attr-defined]
    same, on_scored = source._calibration(asked, data, PICTURES - 7)
    assert on_scored
    assert same.images.ids == data.ids[: PICTURES - 7]  # type: ignore[attr-defined]
    assert "that are scored, without their captions" in same.images_from


def test_places_of_pictures_go_to_a_process_and_back(tmp_path: Path) -> None:
    images = LazyImages(("a", "b"), (FileImage(tmp_path / "a.png"), ArchiveImage(tmp_path / "b.tar", 512, 99)))
    assert pictures(json.loads(json.dumps(places(images)))) == images
    with pytest.raises(DataError, match="'c' is in no file"):
        places(LazyImages(("c",), (EncodedImage(b""),)))


def test_what_cannot_be_run_is_said(blip: Path, coco: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without captions; blip-int8 takes COCO's annotations/captions_val2017\.json"):
        reproduce("blip-int8", ReproductionRequest(output=tmp_path, data=coco / "val2017", checkpoint=str(blip)))
    answerer = tiny_blip_folder(tmp_path / "vqa", "vqa")
    with pytest.raises(ModelError, match="answers questions"):
        reproduce("blip-int8", ReproductionRequest(output=tmp_path, data=coco, checkpoint=str(answerer)))
    asked = {"contender": OURS, "bundle": str(tmp_path / "nowhere"), "threads": 1, "pictures": []}
    with pytest.raises(EngineError, match=r"static-int8 failed: .*nowhere"):
        in_turn.in_its_own_process(source.WORKER, asked, 60)


def test_the_page_says_that_stand_ins_stood_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "STREET_PICTURES", 2)
    monkeypatch.setattr(in_turn, "in_its_own_process", lambda *_: written("a bus", "a car at night"))
    monkeypatch.setattr(source, "_quantize", lambda *_: {"calibrated_on": "street scenes", "on_scored": False})
    found = reproduce("blip-int8", ReproductionRequest(output=tmp_path, rounds=1))
    assert len(found.stand_ins) == 2
    assert "stand-ins" in reproduction_page(found).subtitle
    drawn = source.captioned(tmp_path / "steps" / source.STREET)
    assert (len(drawn), {len(texts) for texts in drawn.captions}) == (2, {5})
