"""CLIP-ResNet against a plain reading of OpenAI's model under its own names, batch norms and fused attention."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, open_bundle, verify
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.architectures import ARCHITECTURES, resnet_config
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip.openai_names import fold_batch_norms, random_state
from vlmquant.checkpoints.clip.resnet import StoredTensor
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.engines import installed_engines
from vlmquant.errors import ModelError
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.rounding import FakeQuantize

TINY_RESNET = resnet_config(
    image_size=64, layers=(1, 2, 1, 1), width=8, text=(64, 2), projection=24, vocabulary=640, context_length=16
)
State = dict[str, torch.Tensor]
TEXTS = ["a dog", "people crossing a wet street", ""]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(TINY_RESNET, tmp_path_factory.mktemp("resnet") / "clip", seed=0)


@pytest.fixture(scope="module")
def state(checkpoint: Path) -> State:
    return safetensors.torch.load_file(checkpoint / "model.safetensors")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("resnet-bundle") / "int8"
    return quantize_model(load_model(checkpoint), get_recipe("static-int8"), calibration, output)


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def convolve(state: State, values: torch.Tensor, convolution: str, norm: str, stride: int = 1) -> torch.Tensor:
    weight = state[f"{convolution}.weight"]
    values = functional.conv2d(values, weight, stride=stride, padding=weight.shape[-1] // 2)
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return functional.batch_norm(values, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])


def openai_image_features(state: State, pixels: torch.Tensor, layers: tuple[int, ...]) -> torch.Tensor:
    values = pixels
    for number in (1, 2, 3):
        stride = 2 if number == 1 else 1
        values = convolve(state, values, f"visual.conv{number}", f"visual.bn{number}", stride).relu()
    values = functional.avg_pool2d(values, 2)
    for stage, count in enumerate(layers, 1):
        for index in range(count):
            block, stride = f"visual.layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            branch = convolve(state, values, f"{block}.conv1", f"{block}.bn1").relu()
            branch = convolve(state, branch, f"{block}.conv2", f"{block}.bn2").relu()
            branch = convolve(state, functional.avg_pool2d(branch, stride), f"{block}.conv3", f"{block}.bn3")
            if f"{block}.downsample.0.weight" in state:
                values = functional.avg_pool2d(values, stride)
                values = convolve(state, values, f"{block}.downsample.0", f"{block}.downsample.1")
            values = (branch + values).relu()
    pool = "visual.attnpool."
    tokens = values.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + state[f"{pool}positional_embedding"][:, None]
    pooled, _ = functional.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=tokens.shape[-1] // 64,
        q_proj_weight=state[f"{pool}q_proj.weight"],
        k_proj_weight=state[f"{pool}k_proj.weight"],
        v_proj_weight=state[f"{pool}v_proj.weight"],
        in_proj_weight=None,
        in_proj_bias=torch.cat([state[f"{pool}{part}_proj.bias"] for part in "qkv"]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0,
        out_proj_weight=state[f"{pool}c_proj.weight"],
        out_proj_bias=state[f"{pool}c_proj.bias"],
        use_separate_proj_weight=True,
        training=False,
        need_weights=False,
    )
    return pooled[0]


def openai_text_features(state: State, ids: torch.Tensor) -> torch.Tensor:
    width = state["positional_embedding"].shape[1]
    tokens = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(values, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

    index = 0
    while f"transformer.resblocks.{index}.ln_1.weight" in state:
        block = f"transformer.resblocks.{index}"
        attention = torch.nn.MultiheadAttention(width, width // 64, batch_first=True).eval()
        prefix = f"{block}.attn."
        attention.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        seen = norm(tokens, f"{block}.ln_1")
        tokens = tokens + attention(seen, seen, seen, attn_mask=mask, need_weights=False)[0]
        fc, proj = f"{block}.mlp.c_fc", f"{block}.mlp.c_proj"
        hidden = functional.linear(norm(tokens, f"{block}.ln_2"), state[f"{fc}.weight"], state[f"{fc}.bias"])
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        tokens = tokens + functional.linear(hidden, state[f"{proj}.weight"], state[f"{proj}.bias"])
        index += 1
    ends = norm(tokens, "ln_final")[torch.arange(len(ids)), ids.argmax(dim=-1)]
    return ends @ state["text_projection"]


def test_the_image_tower_equals_openais_with_its_batch_norms(checkpoint: Path, state: State) -> None:
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = openai_image_features(state, pixels, (1, 2, 1, 1))
        found = load_model(checkpoint).image_tower(pixels)
    assert expected.std() > 0.01, "a constant would prove nothing"
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_text_tower_equals_openais(checkpoint: Path, state: State) -> None:
    model = load_model(checkpoint)
    ids = torch.from_numpy(model.tokenizer.encode_batch(TEXTS))
    with torch.no_grad():
        np.testing.assert_allclose(model.text_tower(ids), openai_text_features(state, ids), atol=1e-4)
    assert model.logit_scale == pytest.approx(100, rel=1e-4)
    assert model.random_weights


def test_one_batch_norm_folded_by_hand() -> None:
    norm = {"running_mean": 3.0, "running_var": 4.0 - 1e-5, "weight": 6.0, "bias": 1.0}
    state = {f"visual.bn2.{kind}": torch.tensor([value]) for kind, value in norm.items()}
    state |= {"visual.conv2.weight": torch.full((1, 1, 1, 1), 5.0), "visual.bn2.num_batches_tracked": torch.tensor(7)}
    folded = fold_batch_norms(state)
    # y = 6 (5 x - 3) / 2 + 1
    assert {name: tensor.item() for name, tensor in folded.items()} == {
        "visual.conv2.weight": pytest.approx(15.0),
        "visual.conv2.bias": pytest.approx(-8.0),
    }


def test_rn50_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        state = random_state(ARCHITECTURES["RN50"])
    weights = [tensor.numel() for name, tensor in state.items() if "running_" not in name]
    assert sum(weights) + 1 == 102_007_137  # and the logit scale


@pytest.mark.parametrize(
    ("name", "value"), [("input_resolution", 64), ("context_length", 16), ("visual.bn1.num_batches_tracked", 9)]
)
def test_entries_that_are_no_weights_are_passed_over(broken: Path, state: State, name: str, value: int) -> None:
    safetensors.torch.save_file({**state, name: torch.tensor(value)}, broken / "model.safetensors")
    assert load_model(broken).image_spec.crop_height == 64


def test_a_state_dict_pickle_opens_only_when_allowed(broken: Path, state: State) -> None:
    (broken / "model.safetensors").unlink()
    torch.save(state, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as a pickle"):
        load_model(broken)
    assert load_model(broken, allow_pickle=True).random_weights


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("visual.layer2.0.bn3.running_var", r"lacks tensors: visual\.layer2\.0\.bn3\.running_var"),
        ("visual.attnpool.positional_embedding", "no CLIP-ResNet image tower"),
        ("text_projection", "no CLIP text model"),
        ("transformer.resblocks.1.attn.in_proj_bias", r"lacks tensors: .*k_proj\.bias"),
        ("visual.layer3.0.conv1.weight", r"lacks tensors: visual\.layer3\.0\.conv1\.weight"),
    ],
)
def test_missing_tensors_are_named(broken: Path, state: State, lost: str, message: str) -> None:
    safetensors.torch.save_file({k: v for k, v in state.items() if k != lost}, broken / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(broken)


def test_other_breakages_are_refused(broken: Path, state: State) -> None:
    safetensors.torch.save_file({**state, "visual.extra": torch.zeros(2)}, broken / "model.safetensors")
    with pytest.raises(ModelError, match=r"unknown tensors: visual\.extra"):
        load_model(broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ModelError, match=r"'relu', expected \"quick_gelu\""):
        load_model(broken)


@pytest.mark.parametrize(("recipe", "rounded"), [("static-int8", True), ("dynamic-int8", False)])
def test_stored_tensors_are_rounded_only_by_static_recipes(checkpoint: Path, recipe: str, rounded: bool) -> None:
    tower = load_model(checkpoint).image_tower
    marked = {name for name, module in tower.named_modules() if isinstance(module, StoredTensor)}
    assert {"pool.0", "layer1.0.branch", "layer1.0.downsample.stored", "layer2.0.pool.0"} <= marked
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    result = quantize_tower(tower, get_recipe(recipe), [pixels], "test")
    assert all(isinstance(result.get_submodule(name), FakeQuantize) == rounded for name in marked)


def test_a_resnet_bundle_multiplies_in_integers_on_every_engine(bundle: Path, checkpoint: Path) -> None:
    assert min(row.cosine_min for row in verify(bundle).rows) > 0.999
    shares = Manifest.read(bundle).components["image"].integer_mac_share
    assert set(shares) == set(installed_engines())
    assert min(shares.values()) > 0.9, shares
    pictures = [np.random.default_rng(5).integers(0, 256, (70, 80, 3), dtype=np.uint8)]
    reference = load_model(checkpoint).encoder().encode_images(pictures)
    for engine in installed_engines():
        assert (open_bundle(bundle, engine=engine).encode_images(pictures) * reference).sum() > 0.98
