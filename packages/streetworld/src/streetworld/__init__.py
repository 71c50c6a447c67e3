"""Street world: drawn street scenes with exact truth, and the small models that were trained on them.

A demonstration that works offline and a benchmark on which damage by quantization is measured exactly: pictures,
captions, classes, questions and videos are all computed from the same scenes.
"""

from pathlib import Path

from streetworld.captions import captions
from streetworld.dataset import calibration_set, retrieval_set, scenes, zero_shot_set
from streetworld.questions import questions, write_questions
from streetworld.render import render
from streetworld.scene import Actor, Scene, sample_scene
from streetworld.videos import TimedEvent, VideoScript, scene_at, script_video, truth, write_video
from vlmquant.errors import ModelError, unknown

__all__ = [
    "CHECKPOINTS",
    "Actor",
    "Scene",
    "TimedEvent",
    "VideoScript",
    "calibration_set",
    "captions",
    "checkpoint",
    "questions",
    "render",
    "retrieval_set",
    "sample_scene",
    "scene_at",
    "scenes",
    "script_video",
    "truth",
    "write_questions",
    "write_video",
    "zero_shot_set",
]


CHECKPOINTS = {
    "street-clip": "training/train_clip.py",
    "street-blip-captions": "training/train_blip.py",
    "street-blip-vqa": "training/train_blip.py",
    "street-gpt2": "training/train_gpt2.py",
    "street-mcan": "training/train_mcan.py",
}
"""The bundled models, and the program that trained each."""


def checkpoint(name: str = "street-clip") -> Path:
    """Return the folder of a bundled model (Hugging Face layout; the co-attention network has its own).

    Raises ModelError for a name that is not in `CHECKPOINTS`, and when the folder is not there.
    """
    if name not in CHECKPOINTS:
        raise unknown(ModelError, "bundled model", name, CHECKPOINTS)
    folder = Path(__file__).resolve().parent / "weights" / name
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"the bundled model {name} is missing from {folder}; reinstall vlmquant or run {CHECKPOINTS[name]}"
        )
    return folder
