"""Draw random numbers as functions of a key and a position, with torch: the same stream on every device."""

import math
from typing import Any

import numpy as np

NOISE, ROUNDING = range(2)  # purposes of a training's keys
GAMMA = 0x9E3779B97F4A7C15 - 2**64  # these bits as int64, like the constants below
MIXERS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def key(seed: int, purpose: int) -> np.int64:
    """Return the key of a training for a purpose; `splitmix64` of it at step - 1 is the key of a step."""
    return np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64).view(np.int64)[0]


def splitmix64(torch: Any, keys: Any, n: int, first: int = 0) -> Any:
    """Return outputs first, first + 1, ... of 64 bits, [R, n] int64, of SplitMix64 from each of R keys, int64.

    G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    out = torch.arange(first + 1, first + n + 1, device=keys.device) * GAMMA + keys[:, None]
    for shift, factor in MIXERS:
        out ^= (out >> shift) & ((1 << (64 - shift)) - 1)
        out *= factor
    return out.bitwise_xor_((out >> 31) & ((1 << 33) - 1))


def normals(torch: Any, keys: Any, n: int, dtype: Any) -> Any:
    """Draw standard normal deviates [R, n] in a dtype, by Box and Muller from the halves of `splitmix64`."""
    drawn = splitmix64(torch, keys, (n + 1) // 2)
    mask = (1 << 32) - 1
    half = 2.0**-32
    p = ((drawn & mask).to(dtype) + 0.5) * half
    angle = ((drawn >> 32).to(dtype) + 0.5) * (math.tau * half)  # from -pi to pi
    radius = torch.sqrt(torch.log(p) * -2.0)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :n]


def bits(torch: Any, keys: Any, n: int) -> Any:
    """Draw integers [R, n] int32 from 0 to 2**16 - 1, four from each output of `splitmix64`."""
    drawn = splitmix64(torch, keys, (n + 3) // 4)
    shifts = torch.arange(0, 64, 16, device=keys.device)
    return ((drawn[..., None] >> shifts) & 0xFFFF).flatten(1)[:, :n].to(torch.int32)
