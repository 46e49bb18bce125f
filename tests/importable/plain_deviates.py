"""Random deviates in torch's own operations: `_backends.deviates`, bit for bit.

Words of 32 bits are int64 from 0 to 2**32 - 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from darkvocab.numerics._backends.deviates import DENSE, HIGH_TAIL, LOW_TAIL, TAIL

_MASK = 0xFFFFFFFF


def philox(
    c0: Tensor | int, c1: Tensor | int, c2: Tensor | int, c3: Tensor | int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four words from a counter of four words, of which one at least is a tensor, and a seed."""
    k0, k1 = seed & _MASK, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # mod 2**64: the bits of an unsigned product
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + 0x9E3779B9 & _MASK, k1 + 0xBB67AE85 & _MASK
    return c0, c1, c2, c3


def _two_sum(a: Tensor, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return a + b as a rounded sum and its error, exactly."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _split(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return a float64 as a sum of two numbers of 26 bits."""
    scaled = a * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def fma(a: Tensor, b: Tensor, c: Tensor | float) -> Tensor:
    """Return a * b + c in float64 with one rounding, where nothing over- or underflows; torch has no such operation.

    S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
    IEEE Transactions on Computers 57, 2008.
    """
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    product_error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    low, low_error = _two_sum(product_error, c)
    high, high_error = _two_sum(product, low)
    rest, lost = _two_sum(low_error, high_error)
    bits = rest.view(torch.int64)  # to be rounded to odd: where inexact and even, one step towards what was lost
    step = torch.where((lost > 0) == (rest > 0), 1, -1)
    odd = torch.where((lost != 0) & (bits & 1 == 0), bits + step, bits).view(torch.float64)
    return high + odd


def sqrt(x: Tensor) -> Tensor:
    """Return the square root of a normal float64 > 0 as IEEE rounds it: on CPUs torch's own is often off by a bit."""
    root = torch.sqrt(x)
    rest = fma(-root, root, x)  # exact; a number beyond the root by half a step squares to about rest = root * step
    up, down = (torch.nextafter(root, torch.full_like(root, end)) for end in (math.inf, 0.0))
    return torch.where(rest > root * (up - root), up, torch.where(rest <= root * (down - root), down, root))


def twice_artanh(s: Tensor) -> Tensor:
    t = s * s
    series = torch.full_like(s, 1 / 17)
    for term in (15, 13, 11, 9, 7, 5, 3):
        series = fma(series, t, 1 / term)
    return 2.0 * fma(s * t, series, s)


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of normal float64 numbers > 0."""
    bits = x.view(torch.int64)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(torch.float64)
    high = mantissa > 1.4142135623730951
    mantissa = torch.where(high, mantissa * 0.5, mantissa)
    exponent = (exponent + high).double()
    log_two = torch.full_like(x, 0.6931471805599453)
    return fma(exponent, log_two, twice_artanh((mantissa - 1.0) / (mantissa + 1.0)))


def turn(word: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of ``(word + 1/2) / 2**32`` of a full turn."""
    quarter = (word + (1 << 29) & _MASK) >> 30
    eighths = (word + (1 << 29) & ((1 << 30) - 1)) - (1 << 29)  # what is left of the word, of either sign
    x = (eighths.double() + 0.5) * (math.tau / 2**32)
    t = x * x
    sine = torch.full_like(x, -1 / 1307674368000)
    for term in (6227020800, -39916800, 362880, -5040, 120, -6):
        sine = fma(sine, t, 1 / term)
    sine = fma(x * t, sine, x)
    cosine = torch.full_like(x, 1 / 20922789888000)
    for term in (-87178291200, 479001600, -3628800, 40320, -720, 24, -2, 1):
        cosine = fma(cosine, t, 1 / term)
    across = quarter & 1 != 0
    one, other = torch.where(across, sine, cosine), torch.where(across, cosine, sine)
    return torch.where((quarter == 1) | (quarter == 2), -one, one), torch.where(quarter >= 2, -other, other)


def row_deviates(rows: Tensor, dim: int, stream: int, seed: int, point: Tensor, trial: Tensor, laplace: bool) -> Tensor:
    """Draw independent deviates of standard deviation 1 of some rows of a trial: [rows, dim] float64."""
    blocks = (dim + 3) // 4
    block = torch.arange(blocks, device=rows.device)
    c1 = (rows | stream << 31)[:, None]
    words = torch.stack(philox(block | int(DENSE), c1, point, trial, seed), dim=1)  # [rows, 4, blocks]
    drawn = words if laplace else words[:, ::2]
    low, high = drawn < int(LOW_TAIL), drawn >= int(HIGH_TAIL)
    plane = torch.arange(0, 4, 1 if laplace else 2, device=rows.device)[:, None]
    more, _, _, _ = philox(plane * blocks + block | int(TAIL), c1[:, :, None], point, trial, seed)
    from_end = torch.where(high, 4294967295 - drawn, drawn) if laplace else drawn
    rare = (from_end.double() * 2.0**32 + more.double() + 0.5) * 2.0**-64
    if laplace:
        q = (drawn.double() - 2147483647.5) * 2.0**-32
        z = log(2.0 * torch.where(low | high, rare, 0.5 - q.abs())) * -0.7071067811865476
        z = torch.where(q < 0, -z, z)
    else:
        p = torch.where(low, rare, (drawn.double() + 0.5) * 2.0**-32)
        radius = sqrt(-2.0 * log(p))
        cosine, sine = turn(words[:, 1::2])
        z = torch.stack([radius * cosine, radius * sine], dim=2)
    return z.reshape(len(rows), 4 * blocks)[:, :dim]
