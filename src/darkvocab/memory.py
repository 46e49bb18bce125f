"""Memory: what was freed goes back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back to the system; glibc else keeps what lies between objects that are left, often most."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
