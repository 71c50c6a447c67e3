"""Measurements of this project and its peers: `python -m benchmarks NAME`, from the repository's root."""
