"""BLIP as float graphs: captioning, question answering, image-text matching."""

from vlmquant.checkpoints.blip.model import BlipModel, load_blip_checkpoint

__all__ = ["BlipModel", "load_blip_checkpoint"]
