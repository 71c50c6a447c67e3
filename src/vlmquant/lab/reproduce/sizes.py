"""What a float model weighs, whatever its files hold."""

from collections.abc import Mapping

from torch import nn

from vlmquant.lab.reproduce.turns import MB

FLOAT32_BYTES = 4


def float32_bytes(graphs: Mapping[str, nn.Module]) -> int:
    """Return the bytes of the weights of all `graphs` in float32; a weight that two share counts once."""
    numbers = {one.data_ptr(): one.numel() for graph in graphs.values() for one in graph.parameters()}
    return FLOAT32_BYTES * sum(numbers.values())


def smaller_files(bytes_on_disk: int, in_float32: int) -> str:
    """Say where a checkpoint's files hold smaller numbers than float32; "" where they do not."""
    if bytes_on_disk >= in_float32:
        return ""
    return f"its files hold smaller numbers; the weights in float32 have {in_float32 / MB:.1f} MB"
