"""The stress model: equal in float, hard in integers; a random tiny CLIP stands in for a trained one."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fakes import tiny_clip_folder
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.architectures import clip_config
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.errors import ModelError
from vlmquant.lab.stress import KINDS, MIDDLE_ONLY, Severity, stressed

BIT_FOR_BIT = ("norm-channels", "value-channels")


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def inputs(model: ClipModel) -> dict[str, torch.Tensor]:
    texts = ["a dog", "two people crossing a wet street", ""]
    generator = torch.Generator().manual_seed(11)
    return {
        "image": torch.randn(6, 3, 32, 32, generator=generator),
        "text": torch.from_numpy(model.tokenizer.encode_batch(texts)),
    }


def tower_of(model: ClipModel, component: str) -> nn.Module:
    return model.image_tower if component == "image" else model.text_tower


def features(tower: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tower(inputs)


def site_inputs(tower: nn.Module, ending: str, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return what each Linear whose name ends so sees."""
    seen: list[torch.Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for name, module in tower.named_modules()
        if name.endswith(ending)
    ]
    features(tower, inputs)
    for handle in handles:
        handle.remove()
    return seen


def torch_dynamic(tower: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of its own function
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(tower), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize("component", ["image", "text"])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), tuple(KINDS)], ids="+".join)
def test_the_float_embeddings_stay_equal(
    model: ClipModel, inputs: dict[str, torch.Tensor], kinds: tuple[str, ...], component: str
) -> None:
    before = features(tower_of(model, component), inputs[component])
    after = features(tower_of(stressed(model, kinds=kinds), component), inputs[component])
    assert functional.cosine_similarity(before, after).min() > 0.99999
    if set(kinds) <= set(BIT_FOR_BIT):
        assert torch.equal(before, after)


@pytest.mark.parametrize("component", ["image", "text"])
def test_torch_dynamic_survives_the_model_and_not_its_stressed_equal(
    model: ClipModel, inputs: dict[str, torch.Tensor], component: str
) -> None:
    expected = features(tower_of(model, component), inputs[component])
    hard = tower_of(stressed(model), component)

    def similarity(tower: nn.Module) -> float:
        # Random weights embed everything near one point; what sets the inputs apart is what has to survive.
        found = features(tower, inputs[component])
        return functional.cosine_similarity(found - found.mean(0), expected - expected.mean(0)).mean().item()

    assert similarity(torch_dynamic(tower_of(model, component))) > 0.9
    assert similarity(hard) > 0.9999
    assert similarity(torch_dynamic(hard)) < 0.5


@pytest.mark.parametrize(("kind", "ending"), [("norm-channels", "fc1"), ("value-channels", "out_proj")])
def test_a_few_channels_become_large(model: ClipModel, inputs: dict[str, torch.Tensor], kind: str, ending: str) -> None:
    def ratio(tower: nn.Module) -> float:
        channels = site_inputs(tower, ending, inputs["image"])[0].abs().flatten(0, -2).amax(dim=0)
        return float(channels.max() / channels.median())

    assert ratio(model.image_tower) < 8
    assert ratio(stressed(model, kinds=[kind]).image_tower) > 12


def test_hidden_channels_are_large_everywhere_and_massive_tokens_at_few(
    model: ClipModel, inputs: dict[str, torch.Tensor]
) -> None:
    def largest_per_token(kind: str) -> torch.Tensor:
        return site_inputs(stressed(model, kinds=[kind]).image_tower, "fc2", inputs["image"])[0].abs().amax(dim=-1)

    assert (largest_per_token("hidden-channels") > 20).float().mean() > 0.8
    massive = (largest_per_token("massive-tokens") > 20).float().mean()
    assert 0 < massive < 0.35, "of 17 tokens about one for each of two directions"


def test_hidden_outliers_are_in_the_middle_blocks_only(model: ClipModel, tmp_path: Path) -> None:
    config = clip_config(
        image_size=32,
        patch_size=16,
        vision=(32, 6, 2),
        text=(32, 3, 2),
        projection=24,
        vocabulary=640,
        context_length=16,
    )
    deep = stressed(load_model(write_random_checkpoint(config, tmp_path / "deep", seed=0)), kinds=MIDDLE_ONLY)
    widths = [m.out_features for n, m in deep.image_tower.named_modules() if n.endswith("fc1")]
    assert [width > 128 for width in widths] == [False, False, True, True, False, False]
    widths = [m.out_features for n, m in deep.text_tower.named_modules() if n.endswith("fc1")]
    assert [width > 128 for width in widths] == [False, True, False]


def test_the_model_itself_is_left_alone_and_a_seed_repeats(model: ClipModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.image_tower.state_dict().items()}
    one, same, other = (stressed(model, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.image_tower.state_dict().items())
    assert one.weights_sha256 == same.weights_sha256
    assert len({model.weights_sha256, one.weights_sha256, other.weights_sha256}) == 3
    assert one.name == f"{model.name} stressed"
    np.testing.assert_allclose(one.encoder().encode_texts(["a"]), same.encoder().encode_texts(["a"]))


def test_erf_gelu_cancels_too(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path / "clip")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"quick_gelu"', '"gelu"'))
    model = load_model(folder)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    hard = stressed(model, kinds=MIDDLE_ONLY)
    similarity = functional.cosine_similarity(features(model.image_tower, pixels), features(hard.image_tower, pixels))
    assert similarity.min() > 0.99999


def test_wrong_requests_are_refused(model: ClipModel) -> None:
    with pytest.raises(ModelError, match="known: hidden-channels, massive-tokens"):
        stressed(model, kinds=["loud"])
    with pytest.raises(ModelError, match=r"share=1\.5"):
        Severity(share=1.5)
    with pytest.raises(ModelError, match="no transformer blocks"):
        stressed(replace(model, image_tower=nn.Linear(2, 2)))
