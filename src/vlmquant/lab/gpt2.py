"""A causal language model in GPT-2's Hugging Face form, for captions that CLIP steers (`lab/guided.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from vlmquant.checkpoints.checkpoint import Checkpoint, fill, read_config, usable_device
from vlmquant.checkpoints.hub import resolve
from vlmquant.errors import ModelError
from vlmquant.models.spec import FloatArray, IdArray

_TIED_HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gpt2:
    """Implements `lab.guided.LanguageModel`; `end_ids` are the end token and the tokens of a full stop."""

    name: str
    module: GPT2LMHeadModel
    tokenizer: AutoTokenizer
    end_ids: frozenset[int]
    weights_sha256: str
    batch_size: int = 256

    def start(self, prompt: str) -> list[int]:
        """Return the start token and the tokens of `prompt`."""
        words = self.tokenizer(prompt, add_special_tokens=False).input_ids if prompt else []
        return [int(self.tokenizer.bos_token_id), *map(int, words)]

    def next_log_probabilities(self, ids: IdArray) -> FloatArray:
        """Map (n, length) int64 tokens to (n, vocabulary) float32 log probabilities of the token that follows.

        Raises ModelError for a text longer than the model's context.
        """
        context = self.module.config.n_positions
        if ids.shape[1] > context:
            raise ModelError(f"{self.name} reads {context} tokens, the text has {ids.shape[1]}; ask for fewer tokens")
        device = next(self.module.parameters()).device
        rows = []
        with torch.inference_mode():
            for start in range(0, len(ids), self.batch_size):
                batch = torch.from_numpy(ids[start : start + self.batch_size]).to(device)
                logits = self.module(input_ids=batch, use_cache=False, logits_to_keep=1).logits[:, -1]
                rows.append(torch.log_softmax(logits.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def text(self, ids: Sequence[int]) -> str:
        """Return what the tokens say, without special tokens and spaces at the ends."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def load_gpt2(name_or_path: str | Path, *, allow_pickle: bool = False, device: str = "cpu") -> Gpt2:
    """Load a float32 GPT-2 from a Hugging Face folder or hub id.

    Raises ModelError when the checkpoint is missing, unsafe, broken or not a GPT-2.
    """
    folder = resolve(name_or_path, allow_pickle=allow_pickle)
    checkpoint = Checkpoint.open(folder, read_config(folder, ("gpt2",)), allow_pickle)
    with torch.device("meta"):
        module = GPT2LMHeadModel(GPT2Config.from_dict(checkpoint.config))
    fill(module, _with_head(checkpoint, module), checkpoint.folder)
    module = module.eval().requires_grad_(False).to(usable_device(device))
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{checkpoint.folder} has no GPT-2 tokenizer that can be read: {error}; copy it again"
        ) from error
    if len(tokenizer) > module.config.vocab_size or tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer in {checkpoint.folder} has {len(tokenizer)} tokens, the model {module.config.vocab_size}, "
            f"and its start and end are {tokenizer.bos_token_id} and {tokenizer.eos_token_id}; they do not fit together"
        )
    stops = {i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip() == "."}
    return Gpt2(
        name=Path(name_or_path).name or checkpoint.folder.name,
        module=module,
        tokenizer=tokenizer,
        end_ids=frozenset({int(tokenizer.eos_token_id), *stops}),
        weights_sha256=checkpoint.weights_sha256,
    )


def _with_head(checkpoint: Checkpoint, module: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """Return the state with the output head, which GPT-2 shares with its token table and files leave out.

    OpenAI's own files lack the prefix "transformer." and hold the causal mask as a tensor.
    """
    expected = module.state_dict().keys()
    state = {}
    for name, tensor in checkpoint.state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        state[name if name in expected else f"transformer.{name}"] = tensor
    state.setdefault(_TIED_HEAD, state.get("transformer.wte.weight", torch.empty(0)))
    return state
