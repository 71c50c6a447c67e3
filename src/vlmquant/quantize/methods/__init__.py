"""The methods, one step a file. A new one is its file and a row of `STEPS`, in the place where it is to run."""

from vlmquant.quantize.methods import (
    attention_products,
    bias_correction,
    compensation,
    gptq,
    half,
    integer_modules,
    nearest,
    pixels,
    pruning,
    ranges,
    reconstruction,
    scales,
    smoothing,
    token_table,
)
from vlmquant.quantize.methods.step import Step

STEPS: dict[str, Step] = {
    "pruning": pruning.STEP,
    "half_precision": half.STEP,
    "attention_products": attention_products.STEP,
    "byte_pixels": pixels.STEP,
    "smoothing": smoothing.STEP,
    "ranges": ranges.STEP,
    "hessian_scales": scales.STEP,
    "nearest": nearest.STEP,
    "gptq": gptq.STEP,
    "reconstruction": reconstruction.STEP,
    "integer_modules": integer_modules.STEP,
    "bias_correction": bias_correction.STEP,
    compensation.CHANNELS: compensation.CHANNEL_STEP,
    compensation.BLOCKS: compensation.BLOCK_STEP,
    "token_table": token_table.STEP,
}
"""Every step by name, in the order in which they run."""
