"""Looking into one checkpoint: what its layers hold, what rounding does to each, and what becomes of the embeddings."""
