"""The rate at which a card compares numbers that it has in its registers: the floor of all distances."""

from __future__ import annotations

import triton
import triton.language as tl

WIDE = 2048  # numbers of a program, 16 for each thread


@triton.jit
def compare(out, rounds):  # type: ignore[no-untyped-def]
    """out[i] = what `rounds` compares, each a difference, its magnitude and a maximum, leave of i."""
    at = tl.program_id(0) * 2048 + tl.arange(0, 2048)
    value = tl.load(out + at)
    other = value + 1.0
    for _ in range(rounds):
        value = tl.maximum(value, tl.abs(other - value))
    tl.store(out + at, value)
