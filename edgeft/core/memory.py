"""Give free memory back to the system: glibc keeps what a phase of large tensors used, and the next adds to it."""

import ctypes
import sys


def give_back() -> None:
    """Return free heap to the system where the C library can (glibc); elsewhere nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
