"""Fidelity between two models' embeddings."""

import json

import numpy as np

from vlmquant.tasks.fidelity import Embedded, compare_embeddings, evenly


def embedded(images: np.ndarray, texts: np.ndarray | None) -> Embedded:
    return Embedded(name="m", images=images, texts=texts, logit_scale=20.0)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_identity_and_damage() -> None:
    random = np.random.default_rng(0)
    images, texts = unit(random.standard_normal((50, 8))), unit(random.standard_normal((6, 8)))
    ids = tuple(f"i{n}" for n in range(50))
    same = compare_embeddings(embedded(images, texts), embedded(images, texts), ids)
    for name, measure in same.measures().items():
        expected = 0.0 if name == "kl" else 1.0
        assert (measure.mean.estimate, measure.mean.low, measure.mean.high, measure.worst) == (expected,) * 4
    damaged = images.copy()
    damaged[7] = -damaged[7]
    found = compare_embeddings(embedded(damaged, texts), embedded(images, texts), ids)
    assert found.worst()[0] == ("i7", -1.0)
    assert found.worst("kl")[0][0] == "i7"
    assert found.measures()["image_cosine"].median == 1.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_pictures_alone_are_enough() -> None:
    images = unit(np.random.default_rng(1).standard_normal((12, 4)))
    found = compare_embeddings(embedded(images, None), embedded(images, None), tuple("abcdefghijkl"))
    assert set(found.measures()) == {"image_cosine", "neighbour_overlap", "rank_agreement"}


def test_evenly() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(100, 3).tolist() == [0, 50, 99]
