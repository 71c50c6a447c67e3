import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from saturation import saturating_product
from vlmquant.quantize.methods.gptq import round_gptq
from vlmquant.quantize.portable import LARGEST_PAIR, largest_pairs, within_pairs
from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe import simulation_only
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.weights import round_nearest, weight_scales

PORTABLE = WeightScheme()
EIGHT_BITS = WeightScheme(portable=False)


def weights(seed: int, rows: int = 6, columns: int = 64) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_t(4, (rows, columns)).astype(np.float32)


def test_the_largest_pair_by_hand() -> None:
    matrix = np.array([[100, 60, -3, -4], [-90, -91, 90, -91], [1, -2, 3, -4]])
    assert largest_pairs(matrix).tolist() == [160, 181, 4]


def test_where_4_does_not_divide_the_inner_dimension_any_two_may_meet() -> None:
    matrix = np.array([[100, -60, -3, 4, 127, 0], [1, -2, 3, -4, 5, -7]])
    assert largest_pairs(matrix).tolist() == [254, 14]
    assert largest_pairs(matrix[:, :4], inner=6).tolist() == [200, 8]
    assert within_pairs(np.array([[100, -127, 64, 3, 65]], dtype=np.int8)).tolist() == [[64, -64, 64, 3, 64]]


def test_the_larger_of_a_pair_gives_way_by_hand() -> None:
    matrix = np.array([[100, 60, -127, -2], [127, -127, -60, -70]], dtype=np.int8)
    assert within_pairs(matrix).tolist() == [[68, 60, -126, -2], [127, -127, -60, -68]]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["channel", "tensor", "group"]), st.sampled_from(["max", "mse"]))
def test_no_pair_of_rounded_weights_exceeds_the_limit(seed: int, granularity: str, scales: str) -> None:
    scheme = WeightScheme(granularity=granularity, group_size=16, scales=scales)
    matrix = weights(seed)
    rounded = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
    assert largest_pairs(rounded.integers).max() <= LARGEST_PAIR


def test_rounding_to_nearest_under_its_own_scale_moves_no_weight_further() -> None:
    matrix = weights(0, 200)
    rounded = round_nearest(matrix, weight_scales(matrix, PORTABLE), PORTABLE)
    assert np.abs(rounded.dequantized() - matrix).max() <= 0.5001 * rounded.scales.max()


def test_second_order_rounding_keeps_to_the_limit() -> None:
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((500, 64)) @ generator.standard_normal((64, 64))
    matrix = weights(2)
    rounded = round_gptq(matrix, weight_scales(matrix, PORTABLE), inputs.T @ inputs / 500, PORTABLE)
    assert largest_pairs(rounded.integers).max() <= LARGEST_PAIR


def test_portable_weights_lose_less_than_seven_bits_do() -> None:
    matrix = weights(3, 400, 512)
    errors = {}
    for name, scheme in {"portable": PORTABLE, "8": EIGHT_BITS, "7": WeightScheme(bits=7)}.items():
        rounded = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
        errors[name] = float(np.mean((rounded.dequantized() - matrix) ** 2))
    assert errors["8"] < errors["portable"] < 0.5 * errors["7"]


@given(st.integers(0, 10_000))
def test_sums_of_pairs_in_16_bits_are_exact_for_portable_weights(seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = weights(seed)
    integers = round_nearest(matrix, weight_scales(matrix, PORTABLE), PORTABLE).integers
    activations = generator.choice(np.array([0, 1, 254, 255]), (5, 64)).astype(np.uint8)
    assert np.array_equal(saturating_product(activations, integers.T), activations.astype(int) @ integers.T.astype(int))


def test_sums_of_pairs_in_16_bits_are_wrong_for_others() -> None:
    activations, integers = np.full((1, 2), 255, dtype=np.uint8), np.array([[127], [127]], dtype=np.int8)
    assert saturating_product(activations, integers).tolist() == [[32767]]
    assert (activations.astype(int) @ integers.astype(int)).tolist() == [[64770]]


def test_fewer_bits_are_left_alone() -> None:
    matrix = weights(4)
    for bits in (4, 7):
        both = [WeightScheme(bits=bits, portable=portable) for portable in (True, False)]
        first, second = (round_nearest(matrix, weight_scales(matrix, scheme), scheme) for scheme in both)
        assert np.array_equal(first.integers, second.integers)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if simulation_only(recipe) is None])
def test_every_preset_that_can_be_deployed_is_portable(name: str) -> None:
    assert get_recipe(name).weights.portable or get_recipe(name).weights.number != "integer"


def test_second_moments_of_a_convolution_are_those_of_its_patches() -> None:
    import torch

    from vlmquant.quantize.calibrate import second_moments

    conv = nn.Conv2d(3, 4, 2, stride=2, bias=False)
    tower = nn.Sequential(conv)
    pixels = torch.rand(2, 3, 4, 4)
    moments = second_moments(tower, {"0": nn.Identity()}, [pixels], "")["0"]
    patches = torch.stack(
        [pixels[n, :, y : y + 2, x : x + 2].flatten() for n in range(2) for y in (0, 2) for x in (0, 2)]
    )
    assert moments == pytest.approx((patches.T @ patches / len(patches)).numpy(), rel=1e-5)
    # In the order of the weight: the product of patches and weight is the convolution.
    product = patches @ conv.weight.flatten(1).T
    assert torch.allclose(product.reshape(2, 2, 2, 4).permute(0, 3, 1, 2), conv(pixels), atol=1e-6)


def test_patches_are_the_convolution_as_one_matrix_product() -> None:
    import torch

    from vlmquant.quantize.modules import QuantizedConv2d, QuantizedPatches, reads_patches

    conv = nn.Conv2d(3, 5, (2, 4), stride=(2, 4))
    matrix = conv.weight.detach().flatten(1).numpy()
    weight = round_nearest(matrix, weight_scales(matrix, PORTABLE), PORTABLE)
    pixels = torch.rand(2, 3, 7, 9)  # a row and a column are left over
    one, other = QuantizedPatches(conv, weight, nn.Identity()), QuantizedConv2d(conv, weight, nn.Identity())
    assert torch.allclose(one(pixels), other(pixels), atol=1e-5)
    assert torch.equal(one.weight, other.weight)
    assert reads_patches(conv)
    for stride, padding, kernel in ((1, 0, 2), (2, 1, 2), (1, 0, 1)):
        assert not reads_patches(nn.Conv2d(3, 5, kernel, stride=stride, padding=padding))
    assert not reads_patches(nn.Linear(3, 5))
