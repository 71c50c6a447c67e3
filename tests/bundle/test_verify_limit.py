"""How far an engine may be from the stored results: as far as another draw of the rounding noise, never further."""

import numpy as np
import pytest

from vlmquant.bundle.proof import LOWEST_FLOOR, _row


def drawn(scale: float, seed: int, around: np.ndarray) -> np.ndarray:
    return (around + scale * np.random.default_rng(seed).standard_normal(around.shape)).astype(np.float32)


FLOAT = drawn(1.0, 0, np.zeros((4, 512)))


@pytest.mark.parametrize("noise", [0.001, 0.1, 0.3])
def test_another_draw_of_the_rounding_noise_passes(noise: float) -> None:
    row = _row("openvino", "image", drawn(noise, 1, FLOAT), drawn(noise, 2, FLOAT), FLOAT)
    assert row.right
    assert row.cosine_min < row.cosine_to_float_min


@pytest.mark.parametrize(
    ("found", "stored_noise"),
    [(drawn(0.3, 1, FLOAT), 0.1), (drawn(0.1, 1, FLOAT), 0.001), (drawn(1.0, 9, 0 * FLOAT), 0.3), (0 * FLOAT, 0.1)],
    ids=["more noise", "more noise than a little", "another model", "nothing"],
)
def test_what_is_further_off_is_refused(found: np.ndarray, stored_noise: float) -> None:
    assert not _row("openvino", "image", found, drawn(stored_noise, 2, FLOAT), FLOAT).right


def test_undefined_results_are_refused() -> None:
    assert not _row("openvino", "image", FLOAT * np.float32(np.nan), FLOAT, FLOAT).right


def test_a_bundle_cannot_lower_the_limit_to_nothing() -> None:
    noise = drawn(1.0, 9, 0 * FLOAT)
    row = _row("openvino", "image", drawn(1.0, 8, 0 * FLOAT), noise, FLOAT)
    assert row.floor == LOWEST_FLOOR
    assert not row.right
