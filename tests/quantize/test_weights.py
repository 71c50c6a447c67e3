import numpy as np
import pytest

from vlmquant.quantize.methods.gptq import DAMPING, round_gptq
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.weights import round_nearest, weight_scales

WEIGHT = np.array([[1.0, -7.0] + [0.0] * 14 + [70.0, 35.0]], dtype=np.float32)


def test_groups_have_their_own_scales_and_the_last_may_be_shorter() -> None:
    scheme = WeightScheme(bits=4, granularity="group", group_size=16)
    scales = weight_scales(WEIGHT, scheme)
    assert scales == pytest.approx(np.array([[1.0, 10.0]]))
    rounded = round_nearest(WEIGHT, scales, scheme)
    assert rounded.integers[0, [0, 1, 16, 17]].tolist() == [1, -7, 7, 4]  # 3.5 to even
    assert rounded.dequantized()[0, [0, 1, 16, 17]].tolist() == [1.0, -7.0, 70.0, 40.0]


def test_weights_are_rounded_row_by_row() -> None:
    scheme = WeightScheme(portable=False)
    weight = np.array([[1.0, -0.5], [100.0, 50.0], [0.0, 0.0]], dtype=np.float32)
    scales = weight_scales(weight, scheme)
    assert scales[:2, 0] == pytest.approx([1 / 127, 100 / 127])
    assert round_nearest(weight, scales, scheme).integers.tolist() == [[127, -64], [127, 64], [0, 0]]


def test_one_scale_per_tensor_is_torchs() -> None:
    scheme = WeightScheme(granularity="tensor", portable=False)
    weight = np.array([[2.0, -0.5], [0.1, -1.0]], dtype=np.float32)
    assert weight_scales(weight, scheme) == pytest.approx(np.full((2, 1), 2.0 / 127.5))
    assert round_nearest(weight, weight_scales(weight, scheme), scheme).integers.tolist() == [[127, -32], [6, -64]]


@pytest.mark.parametrize("granularity", ["channel", "tensor", "group"])
def test_scales_of_least_error_have_less_than_those_that_never_clip(granularity: str) -> None:
    weight = np.random.default_rng(0).standard_t(4, (8, 96)).astype(np.float32)
    errors = []
    for choice in ("max", "mse"):
        scheme = WeightScheme(bits=3, granularity=granularity, group_size=32, scales=choice)
        rounded = round_nearest(weight, weight_scales(weight, scheme), scheme)
        errors.append(float(np.mean((rounded.dequantized() - weight) ** 2)))
    assert errors[1] < 0.9 * errors[0]


def test_16_bits_are_kept_whole() -> None:
    scheme = WeightScheme(bits=16)
    weight = np.array([[1.0, 0.5]], dtype=np.float32)
    assert round_nearest(weight, weight_scales(weight, scheme), scheme).integers.tolist() == [[32767, 16384]]


@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_second_order_rounding_changes_outputs_less_than_nearest(granularity: str) -> None:
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(16, 160)).astype(np.float32)
    inputs = generator.normal(size=(800, 40)) @ generator.normal(size=(40, 160)) + 0.1 * generator.normal(
        size=(800, 160)
    )
    scheme = WeightScheme(bits=3, granularity=granularity, group_size=32)
    scales = weight_scales(weight, scheme)
    nearest = round_nearest(weight, scales, scheme)
    second = round_gptq(weight, scales, inputs.T @ inputs / len(inputs), scheme)
    assert (second.scales == nearest.scales).all()
    assert np.abs(second.integers).max() <= 3
    errors = [np.mean((inputs @ (w.dequantized() - weight).T) ** 2) for w in (nearest, second)]
    assert errors[1] < 0.5 * errors[0]


def test_second_order_rounding_of_independent_inputs_is_nearest() -> None:
    weight = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    scheme = WeightScheme(bits=4)
    scales = weight_scales(weight, scheme)
    found = round_gptq(weight, scales, np.eye(20), scheme)
    assert (found.integers == round_nearest(weight, scales, scheme).integers).all()


def test_second_order_rounding_is_that_of_the_explicit_inverse() -> None:
    generator = np.random.default_rng(3)
    weight = generator.normal(size=(6, 12)).astype(np.float32)
    inputs = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12)) * np.linspace(2, 1, 12)
    moment = inputs.T @ inputs / len(inputs)
    scheme = WeightScheme(bits=4)
    scales = weight_scales(weight, scheme)
    inverse = np.linalg.inv(moment + DAMPING * np.diag(moment).mean() * np.eye(12))
    rest, expected = weight.astype(np.float64), np.zeros(weight.shape, dtype=int)
    for column in np.argsort(-np.diag(moment)):
        expected[:, column] = np.clip(np.rint(rest[:, column] / scales[:, 0]), -7, 7)
        error = (rest[:, column] - expected[:, column] * scales[:, 0]) / inverse[column, column]
        rest -= np.outer(error, inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    assert (round_gptq(weight, scales, moment, scheme).integers == expected).all()
    assert (expected != round_nearest(weight, scales, scheme).integers).any()
