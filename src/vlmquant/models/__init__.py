"""Models as they run, without torch: protocols, preprocessing, tokenizers, decoding."""

from vlmquant.models.spec import Answerer, Captioner, Encoder, ImageSpec, Matcher

__all__ = ["Answerer", "Captioner", "Encoder", "ImageSpec", "Matcher"]
