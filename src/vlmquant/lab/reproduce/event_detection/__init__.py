"""Semantic event detection with an optimized CLIP, run again."""
