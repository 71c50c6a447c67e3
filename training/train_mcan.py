"""Trains the co-attention answerer over a CLIP's features: the bundled street one, or one for VQA v2's files.

python training/train_mcan.py --work /tmp/street-mcan
python training/train_mcan.py --work RUN --checkpoint openai/clip-vit-base-patch32 --paper \
    --questions v2_OpenEnded_mscoco_train2014_questions.json --annotations v2_mscoco_train2014_annotations.json \
    --images train2014 --output RUN/mcan
"""

import argparse
import time
from pathlib import Path

import numpy as np

from streetworld import checkpoint as street_checkpoint
from streetworld.questions import IMAGE_NAME, write_questions
from vlmquant import load_model
from vlmquant.data.coco import read_vqa
from vlmquant.lab.coattention.answerer import McanAnswerer
from vlmquant.lab.coattention.answers import Answers
from vlmquant.lab.coattention.features import ClipFeatures
from vlmquant.lab.coattention.network import McanConfig
from vlmquant.lab.coattention.train import Examples, Schedule, train
from vlmquant.progress import bar

WEIGHTS = Path(__file__).resolve().parents[1] / "packages/streetworld/src/streetworld/weights/street-mcan"
STREET_SEED = 1
CHUNK = 512


def patches_on_disk(features: ClipFeatures, images, path: Path) -> np.ndarray:
    """Return (n, patches, width) float16 features, computed once into a memory map."""
    done = path.with_suffix(".done")
    if not done.exists():
        first = features.patches(images[:1])
        table = np.lib.format.open_memmap(path, "w+", np.float16, (len(images), *first.shape[1:]))
        for start in bar(range(0, len(images), CHUNK), "Patch features", -(-len(images) // CHUNK)):
            table[start : start + CHUNK] = features.patches(images[start : start + CHUNK])
        table.flush()
        done.touch()
    return np.load(path, mmap_mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", default=str(street_checkpoint()))
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--image-name", default="COCO_train2014_{}.jpg")
    parser.add_argument("--scenes", type=int, default=6000, help="street scenes when no files are given")
    parser.add_argument("--paper", action="store_true", help="the paper's sizes and schedule")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    files = (options.questions, options.annotations, options.images)
    image_name = options.image_name
    if not all(files):
        image_name = IMAGE_NAME
        files = (options.work / "questions.json", options.work / "annotations.json", options.work / "images")
        if not files[1].exists():
            write_questions(options.work, options.scenes, split="train", seed=STREET_SEED, track=bar)
    data = read_vqa(*files, image_name=image_name, track=bar)
    model = load_model(options.checkpoint)
    features = ClipFeatures(f"{model.name} float", model, model.image_tower, model.text_tower)
    answers = Answers.collect(data.questions)
    examples = Examples(
        patches=patches_on_disk(features, data.images, options.work / "patches.npy"),
        image_indices=np.array([question.image_index for question in data.questions]),
        tokens=features.tokens([question.text for question in data.questions], bar),
        targets=answers.targets(data.questions),
    )
    widths = {"image_width": examples.patches.shape[2], "text_width": examples.tokens.rows.shape[2]}
    if options.paper:
        config, schedule = McanConfig(**widths, answers=len(answers.texts)), Schedule()
    else:
        config = McanConfig(**widths, answers=len(answers.texts), width=128, layers=2, heads=4)
        schedule = Schedule(peak_rate=1e-3)
    begun = time.monotonic()

    def report(epoch: int, loss: float) -> None:
        print(f"epoch {epoch + 1}: loss {loss:.3f} per question, {time.monotonic() - begun:.0f} s", flush=True)

    network = train(config, examples, schedule, options.work / "state.pt", report)
    McanAnswerer(features, network, answers).save(options.output)
    print(f"{len(data.questions)} questions, {len(answers.texts)} answers: {options.output}")


if __name__ == "__main__":
    main()
