"""The facts of sites, against the same numbers worked out in another way."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.lab.analysis.sites import BINS, place_of, site_facts
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.recipes.presets import get_recipe

FC2 = "vision_model.encoder.layers.1.mlp.fc2"


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def inputs(model, calibration):
    return calibration_inputs(model, calibration, "image")


def facts_of(model, inputs, recipe):
    plan = plan_tower(model.image_tower, recipe, inputs, "")
    return plan, {site.site: site for site in site_facts(plan, inputs, "")}


@pytest.mark.parametrize(
    ("site", "place"),
    [
        ("vision_model.encoder.layers.3.mlp.fc2", ("vision_model.encoder.layers.3", "mlp.fc2")),
        ("visual_projection", ("", "visual_projection")),
        ("layer1.0.conv1", ("layer1.0", "conv1")),
        ("layer1.0.downsample.0", ("layer1.0", "downsample.0")),
    ],
)
def test_a_site_has_a_block_and_a_kind(site, place) -> None:
    assert place_of(site) == place


def test_ratios_and_clipping_are_those_of_the_values(model, inputs) -> None:
    recipe = replace(get_recipe("vanilla-w8a8"))
    plan, facts = facts_of(model, inputs, recipe)
    seen = []
    handle = plan.tower.get_submodule(FC2).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        for batch in inputs:
            plan.tower(batch)
    handle.remove()
    values = torch.cat(seen).double()
    rounded = plan.modules[FC2].rounding(torch.cat(seen)).double()
    expected = 10 * math.log10(float(values.square().sum() / (rounded - values).square().sum()))
    found = facts[FC2]
    assert found.input_sqnr_db == pytest.approx(expected, abs=1e-6)
    assert found.clipped_share == 0
    assert found.input.counts.sum() == values.numel()
    assert len(found.input.counts) == BINS
    weight = plan.tower.get_submodule(FC2).weight
    assert found.weight.counts.sum() == weight.numel()
    assert 40 < found.weight_sqnr_db < 55
    assert found.output_sqnr_db < min(found.input_sqnr_db, found.weight_sqnr_db) + 3


def test_each_bit_is_worth_six_decibels(model, inputs) -> None:
    ratios = {}
    for bits in (4, 6, 8):
        _, facts = facts_of(model, inputs, get_recipe(f"vanilla-w{bits}a{bits}"))
        ratios[bits] = np.mean([site.input_sqnr_db for site in facts.values()])
    assert ratios[6] - ratios[4] == pytest.approx(12.04, abs=1.5)
    assert ratios[8] - ratios[6] == pytest.approx(12.04, abs=1.0)


def test_ranges_found_at_run_time_never_clip(model, inputs) -> None:
    _, facts = facts_of(model, inputs, get_recipe("dynamic-int8"))
    assert FC2 in facts
    assert facts[FC2].clipped_share is None
    assert facts[FC2].grid_low is None
    assert facts[FC2].input_sqnr_db > 40


def test_float_inputs_have_no_noise(model, inputs) -> None:
    _, facts = facts_of(model, inputs, get_recipe("int8-weights"))
    assert facts[FC2].input_sqnr_db is None
    assert facts[FC2].weight_sqnr_db > 40


def test_attention_products_and_twin_grids_are_sites(model, inputs) -> None:
    recipe = replace(get_recipe("twin-hessian-w6a6"), search="none")
    plan, facts = facts_of(model, inputs, recipe)
    operand = facts["vision_model.encoder.layers.0.self_attn.values_product.left"]
    assert operand.weight is None
    assert operand.output_sqnr_db is None
    assert operand.kind == "self_attn.values_product.left"
    assert facts[FC2].grid_low == pytest.approx(-0.1700, abs=0.02)
    assert plan.tower.training is False
