"""The published systems that this project started from, run again: their method and ours, figure by figure."""
