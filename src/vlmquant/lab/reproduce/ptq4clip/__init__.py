"""PTQ4CLIP, run again."""
