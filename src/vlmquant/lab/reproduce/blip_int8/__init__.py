"""Captioning in production with BLIP in INT8, run again."""
