"""Random numbers that are a function of a key and their place, in torch's calls: the same on every device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

GAMMA = 0x9E3779B97F4A7C15 - 2**64  # as the int64 of these bits, like all below
MIXERS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def key(seed: int, purpose: int) -> np.int64:
    """Of a training: other keys for other seeds and purposes. The `words` that it makes are its steps' own keys."""
    return np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64).view(np.int64)[0]


def words(torch: Any, keys: Any, n: int, first: int = 0) -> Any:
    """Words first, first + 1, ... of 64 bits, [R, n] int64, of SplitMix64 from each of R keys, int64.

    G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    out = torch.arange(first + 1, first + n + 1, device=keys.device) * GAMMA + keys[:, None]
    for shift, factor in MIXERS:
        out ^= (out >> shift) & ((1 << (64 - shift)) - 1)
        out *= factor
    return out.bitwise_xor_((out >> 31) & ((1 << 33) - 1))


def normals(torch: Any, keys: Any, n: int, dtype: Any) -> Any:
    """Standard normal deviates [R, n], computed in the type: Box and Muller's of the halves of `words`."""
    drawn = words(torch, keys, (n + 1) // 2)
    mask, half = (1 << 32) - 1, 2.0**-32
    p = ((drawn & mask).to(dtype) + 0.5) * half
    angle = ((drawn >> 32).to(dtype) + 0.5) * (math.tau * half)  # from -pi to pi
    radius = torch.sqrt(torch.log(p) * -2.0)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :n]


def bits(torch: Any, keys: Any, n: int) -> Any:
    """Integers [R, n] int32 from 0 to 2**16 - 1, four of each of `words`."""
    drawn = words(torch, keys, (n + 3) // 4)
    shifts = torch.arange(0, 64, 16, device=keys.device)
    return ((drawn[..., None] >> shifts) & 0xFFFF).flatten(1)[:, :n].to(torch.int32)
