"""Question answering by deep co-attention (MCAN) over the features of a CLIP, float or quantized."""
