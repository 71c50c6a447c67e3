"""What the page of `ptq4clip` says beside its figures: where the source's claims do not hold, and what was left out."""

from collections.abc import Mapping

from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.model import ImageTower
from vlmquant.data.sets import ImageSet
from vlmquant.lab.reproduce.ptq4clip.bit_forms import CALIBRATION_IMAGES
from vlmquant.lab.reproduce.ptq4clip.source_sets import SourceSets, title
from vlmquant.lab.reproduce.published import PUBLISHED
from vlmquant.quantize.sites import multiplications

NOTES = (
    "Every form is a simulation in torch: integers are rounded and computed with as floats, as no engine has kernels "
    "for most of these widths. So there is no speed here, and no size below 8 bits.",
    "Each cell is the score and its difference to FP32 with the 95 % interval of the paired difference over pictures.",
    "The source's released code quantizes 49 modules only: no attention projection, and no product behind a softmax.",
    "The source's two methods differ in more than twin ranges: vanilla takes min/max ranges and b bits in every layer, "
    "the other searches its scales. Here too, and below 8 bits twin + Hessian keeps patches and projection in 8 bits. "
    "So the gap between the methods does not prove twin ranges alone.",
    "twin + Hessian is not run at 2 bits, where each of its two ranges has one bit; nor at 16, which has no preset.",
)


def missing(sets: SourceSets) -> list[str]:
    """Say which of the source's data there are none of, where they are usually got, and what is scored instead."""
    kinds: dict[str, tuple[Mapping[str, ImageSet], tuple[str, ...]]] = {
        "Classification": (sets.labelled, ("imagenetv2",)),
        "Retrieval and steered captions": (sets.captioned, ("coco-val2017", "coco-karpathy-test")),
        "Cosines of a third set": (dict(list(sets.captioned.items())[1:]), ("flickr30k-test",)),
        "Question answering": (sets.questioned, ("vqa-v2-val",)),
    }
    found = []
    for tasks, (scored, names) in kinds.items():
        if not any(name in scored for name in names):
            usual, instead = PUBLISHED[names[0]], f"on {title(next(iter(scored)))}" if scored else "left out"
            found.append(f"{usual.name} is not in the data: {usual.where}. {tasks} here: {instead}.")
    return found


def notes(model: ClipModel, on_scored: bool) -> list[str]:
    """Say what is particular to this model and this calibration."""
    count = sum(len(multiplications(tower)) for tower in model.graphs.values())
    vit = isinstance(model.image_tower, ImageTower)
    found = [
        *NOTES,
        f"Here {count} products are quantized: every Linear and convolution, and with twin + Hessian above 4 bits both "
        "products of every attention; at 4 bits they lose more than all else."
        if vit
        else "twin + Hessian was left out: a ResNet has no GELU, and the source ran it on ViT-B/32 only.",
    ]
    if vit:
        found.append(
            "Vanilla on RN50 is not here: no trained RN50 is bundled, and random weights have no accuracy; name one "
            "with --checkpoint (see checkpoints/clip/resnet.py for its files)."
        )
    if on_scored:
        found.append(
            "Ranges were measured on scored pictures, without their labels, as there are fewer than "
            f"{CALIBRATION_IMAGES} others; --limit leaves some."
        )
    return found
