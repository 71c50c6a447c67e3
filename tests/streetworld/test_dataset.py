import numpy as np
import pytest

from streetworld.dataset import (
    CLASSES,
    calibration_set,
    class_of,
    retrieval_set,
    scenes,
    zero_shot_set,
)
from streetworld.scene import split_of
from vlmquant.errors import DataError


def test_a_longer_list_begins_with_the_shorter_and_seeds_and_splits_differ() -> None:
    assert scenes(4, "test") == scenes(8, "test")[:4]
    assert scenes(4, "test") != scenes(4, "test", seed=1)
    assert not set(scenes(40, "test")) & set(scenes(40, "train"))


@pytest.mark.parametrize(("count", "split", "named"), [(0, "test", "0 scenes"), (3, "val", "'val'")])
def test_bad_requests_are_refused(count: int, split: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        scenes(count, split)


def test_zero_shot_labels_are_the_only_true_class() -> None:
    labelled = zero_shot_set(40)
    assert len(labelled.images) == len(labelled.labels) == 40
    assert labelled.images[0].shape == (160, 160, 3)
    assert len(set(labelled.class_names)) == len(CLASSES)
    for scene, label in zip(labelled.scenes, labelled.labels, strict=True):
        assert CLASSES[label].holds(scene)
        if not scene.crowded:
            assert [c.holds(scene) for c in CLASSES].count(True) == 1


def test_a_scene_about_several_things_has_no_class() -> None:
    several = scenes(5, "test", wanted=lambda s: len({a.kind for a in s.actors}) > 1)
    assert [class_of(scene) for scene in several] == [None] * 5


def test_retrieval_captions_belong_to_one_picture_each() -> None:
    pairs = retrieval_set(60)
    texts = [text for five in pairs.captions for text in five]
    owners: dict[str, set[int]] = {}
    for index, five in enumerate(pairs.captions):
        for text in five:
            owners.setdefault(text, set()).add(index)
    assert len(texts) == 300
    assert all(len(where) == 1 for where in owners.values())


def test_calibration_comes_from_training_scenes_and_says_so() -> None:
    calibration = calibration_set(6)
    assert len(calibration.images) == 6
    assert len(calibration.texts) == 12
    assert "training" in calibration.images_from
    assert calibration.digest == calibration_set(6).digest
    for scene in scenes(6, "train", seed=2000):
        assert all(split_of(scene.time, scene.weather, a.kind, a.colour) == "train" for a in scene.actors)


def test_labels_are_integers() -> None:
    assert zero_shot_set(3).labels.dtype == np.int64
