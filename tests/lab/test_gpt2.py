"""GPT-2 checkpoints as language models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from vlmquant.errors import ModelError
from vlmquant.lab.gpt2 import load_gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers with seeded random weights and a tokenizer of single bytes."""
    path = tmp_path_factory.mktemp("gpt2") / "tiny"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, "<|end|>"])}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|end|>", eos_token="<|end|>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_log_probabilities_are_those_of_transformers(folder: Path) -> None:
    ids = np.array([[256, 70, 71], [256, 80, 90]])
    expected = torch.log_softmax(GPT2LMHeadModel.from_pretrained(folder)(torch.from_numpy(ids)).logits[:, -1], -1)
    np.testing.assert_allclose(load_gpt2(folder).next_log_probabilities(ids), expected.detach().numpy(), atol=1e-5)


def test_openai_names_without_prefix_open_too(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items() if name != "lm_head.weight"}
    save_file({**old, "h.0.attn.bias": torch.ones(1, 1, 4, 4)}, tmp_path / "model.safetensors")
    ids = np.array([[256, 70]])
    before, after = load_gpt2(folder), load_gpt2(tmp_path)
    np.testing.assert_array_equal(before.next_log_probabilities(ids), after.next_log_probabilities(ids))


def test_a_caption_ends_at_a_full_stop_or_the_end_token(folder: Path) -> None:
    language = load_gpt2(folder)
    stop = language.start(".")[1]
    assert language.end_ids == {256, stop}
    assert language.text([*language.start("a bus"), 256]) == "a bus"


def test_a_text_beyond_the_context_and_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reads 32 tokens, the text has 33"):
        load_gpt2(folder).next_log_probabilities(np.zeros((1, 33), dtype=np.int64))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="llama"):
        load_gpt2(tmp_path)
