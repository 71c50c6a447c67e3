"""The dq-clip source, run again on a tiny CLIP and a few pictures of noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from torch import nn

from vlmquant.checkpoints.architectures import ARCHITECTURES, resnet_config
from vlmquant.data.reader import read
from vlmquant.data.sets import LabelledImages
from vlmquant.errors import DataError
from vlmquant.lab.reproduce.dq_clip.collapse import outlier_share
from vlmquant.lab.reproduce.dq_clip.labelled import drawn_pictures, labelled_pictures
from vlmquant.lab.reproduce.dq_clip.quantized_towers import EVERY_LINEAR, source_recipe
from vlmquant.lab.reproduce.dq_clip.tower_figures import (
    MIB,
    PRINTED,
    cost_rows,
    printed_for,
    probe_rows,
    zero_shot_rows,
)
from vlmquant.lab.reproduce.dq_clip.tower_scores import TowerRows, prompts_of, zero_shot_scores
from vlmquant.lab.reproduce.dq_clip.towers_worker import (
    DYNAMIC,
    EAGER,
    ENGINE,
    FLOAT,
    OURS,
    SCRIPT,
    TOKENS,
    source_linears,
)
from vlmquant.lab.reproduce.outcome import Chart, Heatmap
from vlmquant.lab.reproduce.published import PUBLISHED, count_remark
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.run import reproduce
from vlmquant.lab.reproduce.samples import calibration_of
from vlmquant.quantize.observe import Histogram
from vlmquant.quantize.sites import sites
from vlmquant.report.reproduction import reproduction_page, write_reproduction

CLASSES = ("cat", "dog", "red fox", "ship", "street lamp", "tree")
EACH, SCORED = 7, 33
TINY_RESNET = resnet_config(image_size=64, layers=(1, 1, 1, 1), width=64, text=(64, 1), projection=24, vocabulary=640)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise, a folder for each class."""
    made = tmp_path_factory.mktemp("classes")
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (made / name.replace(" ", "_")).mkdir()
        for number in range(EACH):
            pixels = generator.integers(0, 256, (36, 40, 3), np.uint8)
            PillowImage.fromarray(pixels).save(made / name.replace(" ", "_") / f"{number}.png")
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> LabelledImages:
    found = read(folder)
    assert isinstance(found, LabelledImages)
    return found


def test_it_runs_whole_goes_on_where_it_was_and_gives_one_page(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, turns_taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ReproductionRequest(
        output=tmp_path / "run", data=folder, checkpoint=str(tiny_checkpoint), limit=SCORED, rounds=1, threads=1
    )
    monkeypatch.setitem(ARCHITECTURES, "RN50", TINY_RESNET)
    with pytest.raises(KeyboardInterrupt):
        reproduce("dq-clip", request)
    found = reproduce("dq-clip", request)
    assert turns_taken == [FLOAT, DYNAMIC, DYNAMIC, TOKENS, OURS]
    # Before the kill: two bundles, five of embeddings, five probes, two of layers, one turn. Behind it also RN50's.
    assert (found.computed, found.steps) == (4, 19)
    assert found.stand_ins == ()
    rows = {(row.group, row.what): row for row in found.rows}
    seven = "clip: zero-shot, 7 templates"
    assert rows[seven, "both in INT8, top-1 %"].printed == PRINTED["B/16"].top1["both"]
    assert next(row for row in found.rows if row.what.startswith("image tower of RN50")).ours.startswith("9")
    assert any("10,000 test samples, these are 33" in note for note in found.notes)
    assert any("100 classes, these data have 6" in note for note in found.notes)
    assert found.facts["Data"].endswith(", 33 of 42 pictures, 6 classes")
    assert "that are not scored" in found.facts["Static ranges from"]
    heatmap, weights, activations = found.charts
    assert isinstance(heatmap, Heatmap)
    assert isinstance(weights, Chart)
    assert isinstance(activations, Chart)
    assert list(heatmap.panels) == [FLOAT, DYNAMIC, TOKENS, OURS]
    assert np.shape(heatmap.panels[FLOAT]) == (len(CLASSES), len(CLASSES))
    assert all(name.endswith("fc2") for name in activations.lines)
    assert all(sum(y) == pytest.approx(100) for _, y in weights.lines.values())
    again = reproduce("dq-clip", request)
    assert (again.computed, again.rows) == (0, found.rows)
    page = write_reproduction(tmp_path / "run", found)[1].read_text()
    assert "56.13" in page
    assert "nn.MultiheadAttention" in page
    assert "stand-ins" not in reproduction_page(found).subtitle


def test_calibration_is_on_pictures_that_are_not_scored_where_there_are_some(data: LabelledImages) -> None:
    apart, on_scored = calibration_of(data, np.arange(0, 42, 2), "labels")
    assert (len(apart.images), on_scored) == (21, False)
    assert apart.images_from.endswith("that are not scored")
    same, on_scored = calibration_of(data, np.arange(40), "labels")
    assert (len(same.images), on_scored) == (40, True)
    assert same.images_from.endswith("that are scored, without their labels")


def weighed(contender: str) -> dict[str, Any]:
    """What one turn of one contender answers: towers of 4 and 2 MiB, of which INT8 takes away three quarters."""
    share, extra = {FLOAT: (1.0, 0), DYNAMIC: (0.5, 0), TOKENS: (0.25, MIB), OURS: (0.25, MIB)}[contender]
    ms = {FLOAT: 40.0, DYNAMIC: 20.0, TOKENS: 10.0, OURS: 5.0}[contender]
    how = (EAGER, SCRIPT) if contender in (FLOAT, DYNAMIC) else (ENGINE,)
    return {
        "model": contender,
        "ms": {name: [ms, ms + 1, ms - 1] for name in how},
        "bytes": {"image": 4 * MIB * share, "text": 2 * MIB * share},
        "script_bytes": 3 * MIB,
        "other_bytes": extra,
    }


def test_sizes_and_times_are_those_of_the_turns() -> None:
    turns = {name: [weighed(name)] for name in (FLOAT, DYNAMIC, TOKENS, OURS)}
    rows = {row.what: row for row in cost_rows("a model", ("B/32",), turns)}
    assert (rows["FP32, MiB"].printed, rows["FP32, MiB"].its_method) == ("577.18", "6.00")
    sizes = [(row.its_method, row.ours) for row in (rows[f"{of} in INT8, MiB"] for of in ("image", "text", "both"))]
    assert sizes == [("4.00", "4.00"), ("5.00", "5.50"), ("3.00", "2.50")]
    assert rows["image in INT8, ms"].printed == "0.2114"
    assert (rows["image in INT8, ms"].its_method, rows["image in INT8, ms"].ours) == ("20.00", "5.00")
    assert rows["times as fast as FP32"].ours == "8.00 (8.00 to 8.00 by turn)"


def test_towers_are_combined_as_they_are_named(data: LabelledImages) -> None:
    """Right pictures and right texts give 100 %, either one of another space less."""
    prompts = len(prompts_of(data.class_names)) // len(CLASSES)
    axes = np.eye(len(CLASSES), dtype=np.float32)
    right = TowerRows(2 * axes[data.labels], np.repeat(axes, prompts, axis=0))
    turned = TowerRows(right.images, np.roll(right.prompts, 1, axis=1))
    scores = zero_shot_scores({FLOAT: right, DYNAMIC: turned, EVERY_LINEAR: turned, TOKENS: right, OURS: right}, data)
    assert scores["openai-7", "top1", DYNAMIC, "image"].candidate == 1
    assert scores["openai-7", "top1", DYNAMIC, "text"].candidate == 0
    assert scores["openai-80", "top1", DYNAMIC, "both"].difference.estimate == -1
    rows = {(row.group, row.what): row for row in zero_shot_rows("a model", ("B/16",), scores)}
    group = "a model: zero-shot, 7 templates"
    text = rows[group, "text in INT8, top-1 %"]
    assert (text.printed, text.its_method) == ("89.75", "0.00 (-100.00 [-100.00, -100.00])")
    assert text.ours.startswith("100.00 (+0.00 [")
    assert "CIFAR-10" in rows[group, "FP32, top-1 %"].remark
    assert len(rows) == 28


def test_printed_figures_are_of_the_nearest_checkpoint() -> None:
    assert [printed_for(patch) for patch in (32, 16, 14, None)] == [("B/32",), ("B/16",), ("B/16",), ("B/32", "B/16")]
    (float_row, image_row) = probe_rows("a model", printed_for(None), "no scikit-learn")
    assert float_row.printed == "79.69 (B/32), 82.31 (B/16)"
    assert float_row.remark == "no scikit-learn"
    assert image_row.printed == "77.21 (B/32), 67.76 (B/16)"


def test_its_method_is_in_the_mlps_only_as_its_sizes_say() -> None:
    """The printed sizes are those of the architecture whose MLP weights take one byte and not four."""
    width, layers = {"image": 768, "text": 512}, 12
    for printed in PRINTED.values():
        for component in ("image", "text"):
            mlp = layers * 2 * 4 * width[component] ** 2
            smaller = float(printed.mebibytes[""]) - float(printed.mebibytes[component])
            assert smaller == pytest.approx(3 * mlp / MIB, abs=0.05)
    block = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "mlp": nn.ModuleDict({"fc1": nn.Linear(4, 8)})})
    assert source_linears(block) == ["mlp.fc1"]
    assert sites(block, source_recipe(block)) == ["mlp.fc1"]
    assert source_linears(nn.Sequential(nn.Linear(2, 2))) == ["0"]


def test_outliers_take_their_share_of_the_range() -> None:
    counts = np.zeros(1000)
    counts[:10] = 1e6
    assert outlier_share(Histogram(0.0, 10.0, counts)) == pytest.approx(0.99, abs=0.002)
    counts[-1] = 1
    assert outlier_share(Histogram(0.0, 10.0, counts)) == pytest.approx(0.99, abs=0.002)
    assert outlier_share(Histogram(0.0, 10.0, np.ones(1000))) == pytest.approx(0.0, abs=0.002)
    assert outlier_share(Histogram(0.0, 0.0, counts)) == 0


def test_data_that_are_not_the_sources_are_said(tmp_path: Path) -> None:
    assert count_remark("cifar-100", PUBLISHED["cifar-100"].samples) is None
    assert "10,000 test samples, these are 1,000; get it from https://www.cs" in str(count_remark("cifar-100", 1000))
    with pytest.raises(DataError, match="unknown published set"):
        count_remark("cifar", 1)
    with pytest.raises(DataError, match=r"does not exist; CIFAR-100 is at https"):
        labelled_pictures(tmp_path / "nowhere")
    PillowImage.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match="pictures without labels; dq-clip takes"):
        labelled_pictures(tmp_path)


def test_drawn_streets_have_pictures_enough_of_each_class() -> None:
    drawn = drawn_pictures()
    counts = np.bincount(drawn.labels)
    assert len(counts) == len(drawn.class_names)
    assert counts.min() >= 12
    assert len(counts) > 5
