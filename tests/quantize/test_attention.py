"""Attention in so many words computes what transformers' own does, and only while it is asked for."""

from pathlib import Path

import onnx
import pytest
import torch

from vlmquant import load_model
from vlmquant.build.export import export_tower
from vlmquant.quantize.attention import IMPLEMENTATION, make_attention_explicit, plain_attention

INPUTS = {"image": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32), "text": torch.arange(14).reshape(2, 7)}


@pytest.mark.parametrize("component", ["image", "text"])
def test_plain_attention_gives_the_same_and_a_smaller_graph(
    component: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = load_model(tiny_checkpoint)
    tower = model.image_tower if component == "image" else model.text_tower
    inputs = INPUTS[component]
    if component == "image":
        inputs = torch.nn.functional.interpolate(inputs, (model.image_spec.crop_height, model.image_spec.crop_width))
    with torch.inference_mode():
        expected = tower(inputs)
        with plain_attention(tower):
            torch.testing.assert_close(tower(inputs), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(tower(inputs), expected), "outside nothing has changed"
    export_tower(tower, inputs, (0,), tmp_path / "own.onnx")
    with plain_attention(tower):
        export_tower(tower, inputs, (0,), tmp_path / "plain.onnx")
    own, plain = (len(onnx.load(tmp_path / name).graph.node) for name in ("own.onnx", "plain.onnx"))
    assert plain < own


def test_blocks_with_their_products_as_modules_stay_as_they_are(tiny_checkpoint: Path) -> None:
    tower = load_model(tiny_checkpoint).text_tower
    make_attention_explicit(tower)
    with plain_attention(tower):
        found = {m.config._attn_implementation for m in tower.modules() if hasattr(m, "config")}
    assert found == {IMPLEMENTATION}
