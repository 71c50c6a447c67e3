"""DQ-CLIP, run again."""
