"""The linear probe on features whose classes can and cannot be told apart."""

import sys

import numpy as np
import pytest

from vlmquant.errors import DataError
from vlmquant.tasks.linear_probe import linear_probe, split_by_id

pytest.importorskip("sklearn")
IDS = tuple(f"image {i}" for i in range(120))
LABELS = np.arange(120) % 3


def probe(features: np.ndarray):  # type: ignore[no-untyped-def]
    split = split_by_id(IDS, LABELS)
    return linear_probe(features, LABELS, split, ["a", "b", "c"], ids=IDS, dataset="d", model="m")


def test_split_is_stratified_and_does_not_depend_on_the_order() -> None:
    split = split_by_id(IDS, LABELS)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [72, 24, 24]
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(120))
    assert np.bincount(LABELS[split.test]).tolist() == [8, 8, 8]
    backwards = split_by_id(IDS[::-1], LABELS[::-1])
    assert {IDS[i] for i in split.test} == {IDS[::-1][i] for i in backwards.test}


def test_separable_features_are_learned_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal((120, 6)).astype(np.float32)
    features = noise.copy()
    features[np.arange(120), LABELS] += 12
    good, bad = probe(features), probe(noise)
    assert good.metrics["top1"] == 1.0
    assert bad.metrics["top1"] < 0.8
    assert good.details["converged"]
    assert good.details["validation_accuracy"][f"{good.details['C']:.6g}"] == 1.0
    assert len(good.details["validation_accuracy"]) <= 7 + 2 * 4
    assert good.protocol == bad.protocol


def test_too_few_images() -> None:
    with pytest.raises(DataError, match="class 0 has 4 images; a linear probe needs 5"):
        split_by_id(IDS[:12], LABELS[:12])
    same = np.zeros(120, dtype=np.int64)
    split = split_by_id(IDS, same)
    with pytest.raises(DataError, match="at least two classes"):
        linear_probe(np.zeros((120, 2), np.float32), same, split, ["a"], ids=IDS, dataset="d", model="m")


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.linear_model", raising=False)
    monkeypatch.delitem(sys.modules, "sklearn.exceptions", raising=False)
    with pytest.raises(DataError, match=r"pip install 'vlmquant\[probe\]'"):
        probe(np.zeros((120, 6), dtype=np.float32))
