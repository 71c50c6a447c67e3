"""Random checkpoints of the published architectures; sizes are counted without drawing any weight."""

from pathlib import Path

import pytest
import torch
from transformers import BlipConfig, BlipForConditionalGeneration, CLIPConfig, CLIPModel

from vlmquant.checkpoints.architectures import ARCHITECTURES
from vlmquant.checkpoints.random_weights import invented_tokenizer, random_checkpoint, write_random_checkpoint
from vlmquant.errors import ModelError

# The parameter counts that are known for OpenAI's released models.
PUBLISHED = {"ViT-B-32": 151_277_313, "ViT-B-16": 149_620_737, "ViT-L-14": 427_616_513}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig.from_dict(dict(ARCHITECTURES[name])))
    assert sum(parameter.numel() for parameter in clip.parameters()) == PUBLISHED[name]


def test_blip_base_has_the_size_of_the_released_model() -> None:
    with torch.device("meta"):
        blip = BlipForConditionalGeneration(BlipConfig.from_dict(dict(ARCHITECTURES["BLIP-base-captioning"])))
    blip.tie_weights()
    # 990 MB are known of Salesforce's file, in which the table of 30,524 x 768 is twice and its bias of 30,524 too.
    stored = sum(parameter.numel() for parameter in blip.parameters()) + 30_524 * 769
    assert round(4 * stored / 1e6) == 990


def test_the_invented_tokenizer_has_clips_layout() -> None:
    tokenizer = invented_tokenizer(49_408, 77)
    assert tokenizer.vocabulary_size == 49_408
    assert tokenizer.encode_batch(["a photo"])[0, [0, -1]].tolist() == [49_406, 49_407]
    with pytest.raises(ModelError, match="514 to"):
        invented_tokenizer(100, 77)


def test_an_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"known: BLIP-base-captioning, .*, RN50, ViT-B-16, ViT-B-32, ViT-L-14"):
        random_checkpoint("ViT-H-14", tmp_path / "clip")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="exists"):
        random_checkpoint("ViT-B-32", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_remains(tmp_path: Path) -> None:
    config = {**ARCHITECTURES["ViT-B-32"], "vision_config": {"num_attention_heads": 7, "hidden_size": 32}}
    with pytest.raises(Exception, match="heads"):
        write_random_checkpoint(config, tmp_path / "clip", seed=0)
    assert list(tmp_path.iterdir()) == []
