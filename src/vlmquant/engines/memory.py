"""Memory that loading a graph leaves behind."""

import ctypes
import ctypes.util
import sys


def return_freed_memory() -> None:
    """Hand memory that was freed back to the system, where the C library can (glibc); elsewhere do nothing.

    Engines read a file, repack its weights and free the first copy, which glibc keeps: 60 MiB of a full-size BLIP.
    """
    if sys.platform != "linux":
        return
    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim is not None:
        trim(0)
