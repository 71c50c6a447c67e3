"""Street world: drawn street scenes with exact truth, and the small CLIP that was trained on them.

A demonstration that works offline and a benchmark on which damage by quantization is measured exactly: pictures,
captions, classes, questions and videos are all computed from the same scenes.
"""

from pathlib import Path

from vlmquant.errors import ModelError
from vlmquant.streetworld.captions import captions
from vlmquant.streetworld.dataset import calibration_set, retrieval_set, scenes, zero_shot_set
from vlmquant.streetworld.questions import questions, write_questions
from vlmquant.streetworld.render import render
from vlmquant.streetworld.scene import Actor, Scene, sample_scene
from vlmquant.streetworld.videos import TimedEvent, VideoScript, scene_at, script_video, truth, write_video

__all__ = [
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


def checkpoint() -> Path:
    """Return the folder of the bundled street CLIP (Hugging Face layout). Raises ModelError when it is not there."""
    folder = Path(__file__).resolve().parent / "weights" / "street-clip"
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"the bundled street model is missing from {folder}; reinstall vlmquant or run training/train_clip.py"
        )
    return folder
