"""The pickles of CIFAR's Python version, opened without running anything that a pickle may name."""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmquant.errors import DataError


def _latin1(text: str, _: str) -> bytes:
    """Stand for `codecs.encode`, by which Python 3 writes bytes in old pickles, with the one encoding it uses there."""
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
"""All that an array of bytes is made of, by its names in old and new numpy."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what makes an array; anything else is refused."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of CIFAR holds")
        return ALLOWED[module, name]


def unpickled(data: bytes, where: str) -> Mapping[bytes, Any]:
    """Return the dictionary that `data` holds. Raises DataError for anything but arrays, lists, numbers and texts."""
    try:
        found = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise DataError(f"{where} is not a pickle of CIFAR's Python version ({error}); download it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a {type(found).__name__}, expected CIFAR's dictionary; download it again")
    return found
