"""Models small enough to be made inside a test."""

from pathlib import Path

from vlmquant.checkpoints.architectures import blip_config, clip_config
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.models.writer import WriterKind

TINY = clip_config(
    image_size=32,
    patch_size=8,
    vision=(32, 2, 2),
    text=(32, 2, 2),
    projection=24,
    vocabulary=640,
    context_length=16,
)


def tiny_clip_folder(path: Path, seed: int = 0) -> Path:
    """Write a Hugging Face folder of a CLIP of about 70,000 parameters to `path`, which must not exist."""
    return write_random_checkpoint(TINY, path, seed)


def tiny_blip_folder(path: Path, kind: WriterKind, seed: int = 0) -> Path:
    """Write a Hugging Face folder of a BLIP of about 80,000 parameters to `path`, which must not exist.

    Its weights are ten times as wide as usual, so that what it writes depends on what it sees and reads.
    """
    config = blip_config(
        kind,
        image_size=32,
        patch_size=8,
        vision=(32, 2, 2),
        text=(32, 2, 2),
        vocabulary=160,
        context_length=48,
        initializer_range=0.2,
    )
    return write_random_checkpoint(config, path, seed)
