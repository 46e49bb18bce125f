"""Memory: what was freed goes back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back to the system, where the C library is glibc, which else keeps most of it.

    After many small objects of all sizes were made, as by a JSON parser or by threads, that is a large part of all.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
