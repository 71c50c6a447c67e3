from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.budget.log import Drop, confirmation
from vlmquant.budget.yardstick import Texts, Yardstick, default_metric, encoder_metrics, halves
from vlmquant.checkpoints import load_model
from vlmquant.data.folders import read_flat_folder, read_image_folder
from vlmquant.data.sets import ImageSet, LabelledImages
from vlmquant.errors import DataError
from vlmquant.models.encoder import DualEncoder

METRICS = encoder_metrics(Texts(templates=("a {}.",), plain=("a dog", "a street", "nothing")))


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    root = tmp_path_factory.mktemp("labelled")
    for name in ("cat", "dog"):
        pictures(root / name, 12)
    return read_image_folder(root)


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> DualEncoder:
    return load_model(str(tiny_checkpoint)).encoder()


def test_halves_are_disjoint_whole_and_the_same_in_any_order(labelled: ImageSet) -> None:
    found = halves(labelled)
    search, held_out = found["search"], found["held-out"]
    assert set(search.ids) | set(held_out.ids) == set(labelled.ids)
    assert not set(search.ids) & set(held_out.ids)
    assert isinstance(search, LabelledImages)
    assert isinstance(labelled, LabelledImages)
    labels = dict(zip(labelled.ids, labelled.labels, strict=True))
    assert all(labels[name] == label for name, label in zip(search.ids, search.labels, strict=True))
    assert len(halves(labelled, most=3)["search"]) == 3


def test_the_metric_follows_from_the_data(labelled: ImageSet, tmp_path: Path) -> None:
    assert default_metric(labelled, METRICS) == "top1"
    assert default_metric(read_flat_folder(pictures(tmp_path / "flat", 2)), METRICS) == "fidelity"


def test_a_metric_that_the_data_do_not_allow_is_refused(
    labelled: ImageSet, encoder: DualEncoder, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no captions"):
        Yardstick(encoder, labelled, "recall@1", METRICS)
    with pytest.raises(DataError, match=r"'top2'.*fidelity, recall@1, top1"):
        Yardstick(encoder, labelled, "top2", METRICS)
    with pytest.raises(DataError, match="at least 20"):
        Yardstick(encoder, read_flat_folder(pictures(tmp_path / "few", 3)), None, METRICS)


@pytest.mark.parametrize("metric", ["top1", "fidelity"])
def test_a_model_loses_nothing_against_itself(labelled: ImageSet, encoder: DualEncoder, metric: str) -> None:
    drop = Yardstick(encoder, labelled, metric, METRICS).drop(encoder, "search")
    assert drop.points == 0
    assert drop.low == -drop.high
    assert (drop.high == 0) == (metric == "fidelity")  # 12 answers say little, even where all are equal


def test_fidelity_is_the_worse_tower_in_points_of_cosine(labelled: ImageSet, encoder: DualEncoder) -> None:
    class Turned:
        """Embeds texts at 60 degrees to where they were: cosine 0.5."""

        name, logit_scale = "turned", 1.0
        encode_images = staticmethod(encoder.encode_images)

        @staticmethod
        def encode_texts(texts):
            rows = encoder.encode_texts(texts)
            other = np.roll(rows, 1, axis=1)
            other -= (other * rows).sum(axis=1, keepdims=True) * rows
            other /= np.linalg.norm(other, axis=1, keepdims=True)
            return (0.5 * rows + 0.75**0.5 * other).astype(np.float32)

    drop = Yardstick(encoder, labelled, "fidelity", METRICS).drop(Turned(), "held-out")
    assert drop.metric == "text cosine"
    assert drop.points == pytest.approx(50, abs=1e-3)


def test_the_held_out_half_confirms_contradicts_or_cannot_tell() -> None:
    def said(points: float, low: float, high: float, rule: str = "point estimate") -> str:
        return confirmation(Drop(metric="top1", points=points, low=low, high=high, samples=9), 0.5, rule)

    assert said(0.4, -1, 2) == "yes"
    assert said(0.4, -1, 2, "upper limit") == "undecided"
    assert said(0.8, 0.1, 1.5) == "undecided"
    assert said(0.8, 0.6, 1.0) == "no"
