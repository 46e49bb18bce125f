"""Memory that is freed goes back to the system."""

import subprocess
import sys

import pytest

HOLES = """
import ctypes
from darkvocab.memory import give_back

def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [library.malloc(16_384) for _ in range(4_000)]
for block in blocks:
    ctypes.memset(block, 1, 16_384)
for n, block in enumerate(blocks):
    if n % 50:
        library.free(block)
before = held()
give_back()
print(before - held())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
def test_memory_between_objects_that_are_left_is_given_back():
    run = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True)
    assert int(run.stdout) > 40_000  # kB, of 64,000
