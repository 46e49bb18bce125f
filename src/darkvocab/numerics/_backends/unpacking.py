"""Numbers of few bits, compiled: bits to float32 by the scale and bias of each group."""

import numpy as np

from .compilation import kernel
from .rounding import EXPONENT, bits_of, from_bits


@kernel(inline="always")
def _rounded(x, carry, smallest, largest):
    """Round float64 `x` to a grid, ties to even; beyond its `largest` number it is infinite.

    A sum with `carry` times the power of two below x has the grid's spacing in its last bit. Below the `smallest`
    normal number the spacing stays.
    """
    if not np.isfinite(x):
        return x
    added = max(from_bits(bits_of(x) & EXPONENT), smallest) * carry
    rounded = (x + added) - added
    return rounded if abs(rounded) <= largest else np.copysign(np.inf, x)


@kernel(inline="always")
def _value(code, scale, bias, carry, smallest, largest):
    """Scale times code, rounded, plus bias, rounded: as two operations on numbers of the grid give it."""
    return np.float32(_rounded(_rounded(scale * code, carry, smallest, largest) + bias, carry, smallest, largest))


@kernel()
def unpack(data, bits, offset, scales, biases, mantissa_bits, min_exponent, largest, out):
    """Fill `out` [n, dim] with the values of codes of `bits` bits, the lowest bit of `data` [n, bytes] first.

    `scales` and `biases` [n, groups] are float64; a code less `offset` is multiplied and added to in the arithmetic of
    the grid. Float64 holds products exactly, and its sums round to those of the grid (53 >= 2 * 24 + 2 bits).
    """
    carry = 1.5 * 2.0 ** (52 - mantissa_bits)
    smallest = 2.0**min_exponent
    group = out.shape[1] // scales.shape[1]
    n_codes = 1 << bits
    table = np.empty(n_codes, np.float32)
    for i in range(len(out)):
        for g in range(scales.shape[1]):
            scale, bias = scales[i, g], biases[i, g]
            if n_codes <= group:
                for code in range(n_codes):
                    table[code] = _value(code - offset, scale, bias, carry, smallest, largest)
            for j in range(g * group, (g + 1) * group):
                byte, shift = j * bits >> 3, j * bits & 7
                word = np.int64(data[i, byte])
                if shift + bits > 8:
                    word |= np.int64(data[i, byte + 1]) << 8
                code = (word >> shift) & (n_codes - 1)
                if n_codes <= group:
                    out[i, j] = table[code]
                else:
                    out[i, j] = _value(code - offset, scale, bias, carry, smallest, largest)
