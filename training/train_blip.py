"""Trains the bundled street BLIPs: one for captions, one for questions. See training/README.md.

python training/train_blip.py --minutes 62 --work /tmp/street-blip
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from street_data import prepare
from street_language import CONTEXT, QUESTIONS_PER_PICTURE, asked, caption, make_tokenizer, save_tokenizer
from train_clip import (
    CHECKPOINT_MINUTES,
    MEAN,
    PEAK_RATE,
    SNAPSHOT_MINUTES,
    STD,
    WEIGHT_DECAY,
    agreed,
    average_gradients,
    epoch_rows,
    learning_rate,
)
from train_clip import WEIGHTS as STREET_CLIP
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    CLIPModel,
)
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.clip.modeling_clip import CLIPVisionModel

CAPTIONS, VQA = "street-blip-captions", "street-blip-vqa"
TEXT_LAYERS = {CAPTIONS: 3, VQA: 2}
ARCHITECTURES = {CAPTIONS: BlipForConditionalGeneration, VQA: BlipForQuestionAnswering}
BATCH, VISION_RATE_SHARE, ANSWER_WEIGHT, MOST_SHIFT_PX = 64, 0.5, 2.0, 4
IGNORED = -100


def make_models(tokenizer: BertTokenizer) -> dict[str, torch.nn.Module]:
    """Return both models, untrained and with one vision model between them."""
    vision = {
        "image_size": 128,
        "patch_size": 16,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "hidden_act": "quick_gelu",
        "initializer_range": 0.02,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "encoder_hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 3,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    models = {}
    for name, layers in TEXT_LAYERS.items():
        config = BlipConfig(text_config=text | {"num_hidden_layers": layers}, vision_config=vision)
        models[name] = ARCHITECTURES[name](config)
    models[VQA].vision_model = models[CAPTIONS].vision_model
    return models


@torch.no_grad()
def warm_start(vision: BlipVisionModel, clip: CLIPVisionModel, pixels: torch.Tensor) -> None:
    """Copy CLIP's vision weights; its first layer norm, which BLIP lacks, is folded into the embeddings.

    Subtracting a token's mean, the gain and the bias are linear and fold exactly; the division by a token's standard
    deviation becomes, for the patches, one division by its mean over the pictures `pixels`, float32 (n, 3, 128, 128).
    """
    source, target = clip.state_dict(), vision.state_dict()
    for name in target:
        layer = name.replace("self_attn.projection", "self_attn.out_proj")
        if "qkv" in name:
            target[name].copy_(torch.cat([source[name.replace("qkv", f"{part}_proj")] for part in "qkv"]))
        elif layer in source and not name.startswith("embeddings."):
            target[name].copy_(source[layer])
    gain, bias = clip.pre_layrnorm.weight, clip.pre_layrnorm.bias
    tokens = clip.embeddings(pixels)
    spread = tokens.std(-1, unbiased=False)
    classes, patches = gain / spread[0, 0], gain / spread[:, 1:].mean()
    weight, first = clip.embeddings.patch_embedding.weight, clip.embeddings.class_embedding
    positions = clip.embeddings.position_embedding.weight
    own = vision.embeddings
    own.patch_embedding.weight.copy_((weight - weight.mean(0)) * patches[:, None, None, None])
    own.patch_embedding.bias.zero_()
    own.class_embedding.copy_((first - first.mean()) * classes)
    centred = positions - positions.mean(1, keepdim=True)
    own.position_embedding[0, 0] = centred[0] * classes + bias
    own.position_embedding[0, 1:] = centred[1:] * patches + bias


def save(models: dict[str, torch.nn.Module], tokenizer: BertTokenizer, output: Path) -> None:
    """Write the two ordinary Hugging Face folders, float16, file by file through a rename."""
    for name, model in models.items():
        folder, staging = output / name, output / (name + ".tmp")
        shutil.rmtree(staging, ignore_errors=True)
        half = ARCHITECTURES[name](model.config)
        half.load_state_dict(model.state_dict())
        half.to(torch.float16).save_pretrained(staging)
        save_tokenizer(tokenizer, staging)
        processor = BlipImageProcessor(size={"height": 128, "width": 128}, image_mean=list(MEAN), image_std=list(STD))
        processor.save_pretrained(staging)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(staging.iterdir()):
            file.chmod(0o644)
            os.replace(file, folder / file.name)
        staging.rmdir()


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 (n, 128, 128, 3) into the float32 (n, 3, 128, 128) that the models take."""
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (MEAN, STD))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std


def altered(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the pictures up to 15 % brighter or darker, all shifted by up to four pixels."""
    light = rng.uniform(0.85, 1.15, (len(pixels), 1, 1, 1)).astype(np.float32)
    pixels = np.clip(pixels * light, 0, 255).astype(np.uint8)
    padded = np.pad(pixels, ((0, 0), (MOST_SHIFT_PX, MOST_SHIFT_PX), (MOST_SHIFT_PX, MOST_SHIFT_PX), (0, 0)), "edge")
    top, left = rng.integers(2 * MOST_SHIFT_PX + 1, size=2)
    return padded[:, top : top + 128, left : left + 128]


def language_loss(
    decoder: torch.nn.Module, tokenizer: BertTokenizer, texts: list[str], seen: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean cross-entropy of the tokens of `texts`, each begun with [DEC] and ended with [SEP]."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(seen.device)
    tokens.input_ids[:, 0] = tokenizer.bos_token_id
    return decoder(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        encoder_hidden_states=seen,
        encoder_attention_mask=mask,
        labels=tokens.input_ids.masked_fill(tokens.attention_mask == 0, IGNORED),
    ).loss


def losses_of(
    models: dict[str, torch.nn.Module],
    tokenizer: BertTokenizer,
    images: torch.Tensor,
    texts: list[str],
    asked_of: tuple[list[str], list[str]],
) -> dict[str, torch.Tensor]:
    """Return the loss of the captions and that of the answers; the pictures are encoded once for both."""
    captioner, answerer = models[CAPTIONS], models[VQA]
    seen = captioner.vision_model(pixel_values=images).last_hidden_state
    asked_texts, answers = asked_of
    tokens = tokenizer(asked_texts, padding=True, return_tensors="pt").to(images.device)
    question = answerer.text_encoder(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        encoder_hidden_states=seen.repeat_interleave(QUESTIONS_PER_PICTURE, 0),
    ).last_hidden_state
    return {
        "caption": language_loss(captioner.text_decoder, tokenizer, texts, seen, None),
        "answer": language_loss(answerer.text_decoder, tokenizer, answers, question, tokens.attention_mask),
    }


def make_optimizer(parameters: list[torch.nn.Parameter], vision: BlipVisionModel) -> torch.optim.AdamW:
    """Return AdamW; the warm-started vision model learns at a share of the rate."""
    own = {id(p) for p in vision.parameters()}
    groups = [
        {
            "params": [p for p in parameters if (id(p) in own) == is_vision and (p.ndim > 1) == is_matrix],
            "weight_decay": WEIGHT_DECAY if is_matrix else 0.0,
            "share": VISION_RATE_SHARE if is_vision else 1.0,
        }
        for is_vision in (True, False)
        for is_matrix in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def train(rank: int, workers: int, options: argparse.Namespace) -> None:
    """One of `workers` equal single-threaded processes, as in train_clip.py."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{options.work}/rendezvous", rank=rank, world_size=workers
    )
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(options.seed)
    chosen, pixels = prepare(options.work, options.scenes, workers)
    tokenizer = make_tokenizer(chosen[:4000], np.random.default_rng(options.seed))
    models = make_models(tokenizer)
    vision = models[CAPTIONS].vision_model
    street_clip = CLIPModel.from_pretrained(STREET_CLIP, dtype=torch.float32)
    warm_start(vision, street_clip.vision_model, normalised(np.array(pixels[:64])))
    both = torch.nn.ModuleDict(models).to(device).train()
    parameters = list(both.parameters())
    optimizer = make_optimizer(parameters, vision)
    state = options.work / "state.pt"
    step, spent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        both.load_state_dict(saved["models"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    log = (options.work / f"log{rank}.jsonl").open("a")
    begun, since_checkpoint, since_snapshot = time.monotonic() - spent, spent, spent

    while spent < options.minutes * 60:
        rng = np.random.default_rng([options.seed, 3, step, rank])
        rows = epoch_rows(len(chosen), step, rank, workers, options.seed, BATCH)
        scenes = [chosen[i] for i in rows]
        images = normalised(altered(pixels[rows], rng)).to(device)
        texts, asked_of = [caption(scene, rng) for scene in scenes], asked(scenes, rng)
        rate = learning_rate(step, spent / (options.minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with torch.autocast(device.type, torch.bfloat16):
            losses = losses_of(models, tokenizer, images, texts, asked_of)
        optimizer.zero_grad(set_to_none=True)
        (losses["caption"] + ANSWER_WEIGHT * losses["answer"]).backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        spent = agreed(time.monotonic() - begun)
        if step % 10 == 0:
            line = {"step": step, "seconds": round(spent, 1), "rate": rate}
            log.write(json.dumps(line | {k: round(v.item(), 4) for k, v in losses.items()}) + "\n")
            log.flush()
        if rank == 0 and spent - since_checkpoint > CHECKPOINT_MINUTES * 60:
            since_checkpoint = spent
            parts = {"models": both.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
            torch.save(parts, state.with_suffix(".tmp"))
            os.replace(state.with_suffix(".tmp"), state)
        if rank == 0 and spent - since_snapshot > SNAPSHOT_MINUTES * 60:
            since_snapshot = spent
            save(models, tokenizer, options.output)
    if rank == 0:
        save(models, tokenizer, options.output)
        (options.work / "finished").touch()
    torch.distributed.destroy_process_group()


def main() -> None:
    """Train until the minutes are used up; resume from the checkpoint in --work when there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=62.0)
    parser.add_argument("--scenes", type=int, default=32000)
    parser.add_argument("--work", type=Path, required=True, help="pictures, checkpoint and log; resumes what is there")
    parser.add_argument("--output", type=Path, default=STREET_CLIP.parent, help="holds the two weight folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=torch.cuda.device_count() or os.cpu_count())
    options = parser.parse_args()
    prepare(options.work, options.scenes, options.workers)
    (options.work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options.workers, options), options.workers)


if __name__ == "__main__":
    main()
