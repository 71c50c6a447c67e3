"""Many recipes on one checkpoint: what each costs and what each keeps, resumable."""
