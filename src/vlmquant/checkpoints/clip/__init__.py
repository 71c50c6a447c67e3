"""CLIP, with a vision transformer or a ResNet, as two float towers."""

from vlmquant.checkpoints.clip.model import ClipModel, load_clip

__all__ = ["ClipModel", "load_clip"]
