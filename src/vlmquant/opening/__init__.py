"""From what a user named to something that runs: the only place where a model is opened and described.

A name is a bundle folder, a checkpoint folder, a hub id, or None for the bundled demonstration model.
"""

from vlmquant.bundle.placement import AUTO
from vlmquant.opening.facts import ModelFacts
from vlmquant.opening.named import TORCH, Opened, RunsOn, open_named, opened_checkpoint

__all__ = ["AUTO", "TORCH", "ModelFacts", "Opened", "RunsOn", "open_named", "opened_checkpoint"]
