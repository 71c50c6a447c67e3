"""Trains the bundled street CLIP. See training/README.md.

python training/train_clip.py --minutes 68 --work /tmp/street-clip
"""

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from street_data import (
    attribute_statements,
    attribute_weights,
    batch_statements,
    encode_scenes,
    prepare,
    truth,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from streetworld.captions import FIXED, TEMPLATES, short_statement, vary_caption

WEIGHTS = Path(__file__).resolve().parents[1] / "packages/streetworld/src/streetworld/weights/street-clip"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MERGES, CONTEXT = 400, 48
BATCH, PEAK_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 96, 1.0e-3, 120, 0.05
LOSS_WEIGHTS = {"by_text": 1.0, "by_caption": 1.0, "by_image": 0.5, "auxiliary": 10.0}
SNAPSHOT_MINUTES, CHECKPOINT_MINUTES = 12.0, 3.0


def make_tokenizer(chosen: list, rng: np.random.Generator) -> CLIPTokenizer:
    """Train CLIP's kind of byte-level BPE on captions; every byte stays encodable."""
    corpus = [s.text for s in FIXED] + list(TEMPLATES)
    for scene in chosen:
        corpus += [vary_caption(scene, style, rng).text for style in range(5)]
        corpus += [short_statement(scene, rng).text for _ in range(3)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = len(alphabet) + 40 + MERGES
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    names = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
    names = [*dict.fromkeys(names), "<|pad|>", "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={name: index for index, name in enumerate(names)},
        merges=merges,
        pad_token="<|pad|>",
        model_max_length=CONTEXT,
    )


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return the untrained model."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "projection_dim": 128,
    }
    vision = {
        "image_size": 128,
        "patch_size": 16,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "projection_dim": 128,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the ordinary Hugging Face folder, float16, file by file through a rename."""
    staging = folder.parent / (folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    half = CLIPModel(model.config)
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    CLIPImageProcessor(
        size={"shortest_edge": 128},
        crop_size={"height": 128, "width": 128},
        resample=3,
        image_mean=list(MEAN),
        image_std=list(STD),
        do_convert_rgb=True,
    ).save_pretrained(staging)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(staging.iterdir()):
        file.chmod(0o644)
        os.replace(file, folder / file.name)
    staging.rmdir()


def multi_positive(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every row to the uniform distribution over its true columns; rows without one are left out.

    The least possible value, log(number of true columns), is subtracted, so 0 is a perfect model.
    """
    count = positive.sum(1)
    rows = count > 0
    logits, positive, count = logits[rows], positive[rows].float(), count[rows].float()
    mean_log = (torch.log_softmax(logits, 1) * positive).sum(1) / count
    return (-mean_log - count.log()).mean()


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over steps, then half a cosine over the time that training may take."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (cosine + 0.002)


def train(rank: int, workers: int, options: argparse.Namespace) -> None:
    """One of `workers` equal processes: each takes its own batch, gradients are averaged after every backward pass.

    On a machine with few, shared cores single-threaded processes are much faster than one process with threads.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{options.work}/rendezvous", rank=rank, world_size=workers
    )
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(options.seed)
    chosen, pixels = prepare(options.work, options.scenes, workers)
    around, actors = encode_scenes(chosen)
    asked = torch.from_numpy(truth(around, actors, attribute_statements()))
    weights = torch.from_numpy(attribute_weights(attribute_statements())).to(device)
    tokenizer = make_tokenizer(chosen[:4000], np.random.default_rng(options.seed))
    model = make_model(tokenizer).to(device)
    model.set_attn_implementation("eager")  # on CPU the fused kernel's backward pass takes three times as long
    heads = torch.nn.Linear(192, asked.shape[1]).to(device)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in (MEAN, STD))
    state = options.work / "state.pt"
    step, spent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    log = (options.work / f"log{rank}.jsonl").open("a")
    begun, since_checkpoint, since_snapshot = time.monotonic() - spent, spent, spent
    model.train()

    def encode_texts(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(device)
        return model.text_projection(model.text_model(**tokens).pooler_output)

    while spent < options.minutes * 60:
        rng = np.random.default_rng([options.seed, 3, step, rank])
        rows = epoch_rows(len(chosen), step, rank, workers, options.seed)
        statements = batch_statements([chosen[i] for i in rows], rng)
        positive = torch.from_numpy(truth(around[rows], actors[rows], statements)).to(device)
        images = torch.from_numpy(pixels[rows]).to(device).permute(0, 3, 1, 2).float()
        images = (images * torch.empty(len(rows), 1, 1, 1, device=device).uniform_(0.85, 1.15)).clamp_(0, 255)
        images = (images - mean) / std

        rate = learning_rate(step, spent / (options.minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = rate
        texts = [s.text for s in statements]
        with torch.autocast(device.type, torch.bfloat16):
            pooled = model.vision_model(pixel_values=images).pooler_output
            image = model.visual_projection(pooled)
            # Captions and short statements apart: each is padded to its own longest.
            text = torch.cat([encode_texts(texts[: len(rows)]), encode_texts(texts[len(rows) :])])
            answers = heads(pooled)
        image = torch.nn.functional.normalize(image.float(), dim=1)
        text = torch.nn.functional.normalize(text.float(), dim=1)
        logits = model.logit_scale.exp() * image @ text.T
        losses = {
            "by_text": multi_positive(logits.T, positive.T),
            "by_caption": multi_positive(logits[:, : len(rows)], positive[:, : len(rows)]),
            "by_image": multi_positive(logits, positive),
            "auxiliary": torch.nn.functional.binary_cross_entropy_with_logits(
                answers.float(), asked[rows].to(device).float(), weight=weights
            ),
        }
        loss = sum(LOSS_WEIGHTS[name] * value for name, value in losses.items())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        step += 1
        spent = agreed(time.monotonic() - begun)
        if step % 10 == 0:
            line = {"step": step, "seconds": round(spent, 1), "rate": rate, "scale": model.logit_scale.exp().item()}
            log.write(json.dumps(line | {k: round(v.item(), 4) for k, v in losses.items()}) + "\n")
            log.flush()
        if rank == 0 and spent - since_checkpoint > CHECKPOINT_MINUTES * 60:
            since_checkpoint = spent
            parts = {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(parts | {"step": step, "spent": spent}, state.with_suffix(".tmp"))
            os.replace(state.with_suffix(".tmp"), state)
        if rank == 0 and spent - since_snapshot > SNAPSHOT_MINUTES * 60:
            since_snapshot = spent
            save(model, tokenizer, options.output)
    if rank == 0:
        save(model, tokenizer, options.output)
        (options.work / "finished").touch()
    torch.distributed.destroy_process_group()


def epoch_rows(count: int, step: int, rank: int, workers: int, seed: int, batch: int = BATCH) -> np.ndarray:
    """Return the scenes of this worker's batch: a new order every epoch, no scene twice in one."""
    per_epoch = count // (batch * workers)
    order = np.random.default_rng([seed, 4, step // per_epoch]).permutation(count)
    first = (step % per_epoch * workers + rank) * batch
    return np.sort(order[first : first + batch])


def average_gradients(parameters: list[torch.nn.Parameter], workers: int) -> None:
    """Replace every gradient by its mean over the workers, in one exchange."""
    if workers == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters])
    torch.distributed.all_reduce(flat)
    flat /= workers
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))


def agreed(seconds: float) -> float:
    """Return the first worker's clock, so that all stop at the same step."""
    value = torch.tensor([seconds], dtype=torch.float64)
    torch.distributed.broadcast(value, 0)
    return float(value)


def main() -> None:
    """Train until the minutes are used up; resume from the checkpoint in --work when there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=68.0)
    parser.add_argument("--scenes", type=int, default=40000)
    parser.add_argument("--work", type=Path, required=True, help="pictures, checkpoint and log; resumes what is there")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=torch.cuda.device_count() or os.cpu_count())
    options = parser.parse_args()
    prepare(options.work, options.scenes, options.workers)
    (options.work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options.workers, options), options.workers)


if __name__ == "__main__":
    main()
