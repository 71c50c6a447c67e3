"""Trains the bundled street GPT-2, the language model of captions that CLIP steers. See training/README.md.

python training/train_gpt2.py --minutes 6
"""

import argparse
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from streetworld.captions import vary_caption
from streetworld.dataset import scenes

WEIGHTS = Path(__file__).resolve().parents[1] / "packages/streetworld/src/streetworld/weights/street-gpt2"
SEED, STYLES, VOCABULARY, CONTEXT = 1, 5, 640, 64
WIDTH, LAYERS, HEADS = 128, 3, 4
BATCH, PEAK_RATE, WARM_UP_STEPS = 128, 2e-3, 100
END = "<|endoftext|>"


def captions_of(count: int, split: str) -> list[str]:
    """Return five captions of each of the first `count` scenes of a split."""
    rng = np.random.default_rng([SEED, 51])
    return [vary_caption(scene, style, rng).text for scene in scenes(count, split, SEED) for style in range(STYLES)]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train GPT-2's kind of byte-level BPE; every byte stays encodable."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=END, eos_token=END, unk_token=END, model_max_length=CONTEXT
    )


def rows_of(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return (n, longest) tokens, start and end around each text, -1 behind it."""
    end = tokenizer.eos_token_id
    rows = [[end, *tokenizer(text).input_ids, end] for text in texts]
    table = torch.full((len(rows), max(map(len, rows))), -1)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return table


def loss_of(model: GPT2LMHeadModel, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy per token."""
    logits = model(input_ids=rows[:, :-1].clamp(min=0)).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), ignore_index=-1)


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the ordinary Hugging Face folder, float16, file by file through a rename."""
    staging = folder.parent / (folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(staging.iterdir()):
        file.chmod(0o644)
        os.replace(file, folder / file.name)
    staging.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--scenes", type=int, default=12000)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    texts = captions_of(options.scenes, "train")
    tokenizer = make_tokenizer(texts[:20000])
    rows = rows_of(tokenizer, texts)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    begun, step = time.monotonic(), 0
    while (spent := time.monotonic() - begun) < 60 * options.minutes:
        progress = spent / (60 * options.minutes)
        rate = PEAK_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.002)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.from_numpy(np.random.default_rng([SEED, step]).integers(len(rows), size=BATCH))
        batch = rows[chosen]
        loss = loss_of(model, batch[:, : int((batch >= 0).sum(1).max())])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f}", flush=True)
        step += 1
    model.eval()
    with torch.inference_mode():
        dev = loss_of(model, rows_of(tokenizer, captions_of(400, "dev")))
        print(f"{step} steps; dev cross-entropy per token {dev:.3f}")
    save(model, tokenizer, options.output)


if __name__ == "__main__":
    main()
