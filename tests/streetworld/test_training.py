import sys
from pathlib import Path

import numpy as np
import pytest

from streetworld.dataset import scenes

TRAINING = Path(__file__).resolve().parents[2] / "training"


@pytest.fixture(scope="module")
def street_data():
    sys.path.insert(0, str(TRAINING))
    try:
        import street_data

        yield street_data
    finally:
        sys.path.remove(str(TRAINING))


def test_the_fast_truth_table_agrees_with_the_definition(street_data) -> None:
    chosen = scenes(60, "train", seed=6)
    statements = [
        *street_data.batch_statements(chosen, np.random.default_rng(0)),
        *street_data.attribute_statements(),
    ]
    table = street_data.truth(*street_data.encode_scenes(chosen), statements)
    np.testing.assert_array_equal(table, [[s.holds(scene) for s in statements] for scene in chosen])
    assert table[:, : len(chosen)].diagonal().all()


def test_training_pictures_have_the_models_size_and_are_repeatable(street_data) -> None:
    for scene in scenes(12, "train", seed=6):
        picture = street_data.picture(scene)
        assert picture.shape == (128, 128, 3)
        np.testing.assert_array_equal(picture, street_data.picture(scene))
