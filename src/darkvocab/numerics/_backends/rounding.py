"""Rounding to a number grid, compiled: values to signed codes (see `darkvocab.numerics.grids`), codes to values."""

import numpy as np
from numba import types
from numba.extending import intrinsic

from .compilation import kernel

_SAME_WIDTH = {types.float32: types.int32, types.float64: types.int64}
EXPONENT = 0x7FF << 52  # bits of a float64
INTEGER_BITS = 0x433 << 52  # of 2**52, whose significand holds a whole number


@intrinsic
def bits_of(typingctx, x):
    """The bit pattern of a float as a signed integer of its width."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_data_type(signature.return_type))

    return _SAME_WIDTH[x](x), codegen


@intrinsic
def from_bits(typingctx, bits):
    """The float with this bit pattern, an int32 or an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_data_type(signature.return_type))

    return {of: number for number, of in _SAME_WIDTH.items()}[bits](bits), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c with one rounding, on every machine."""

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), codegen


@kernel(inline="always")
def index_of(x, mantissa_bits, min_exponent, max_code):
    """Ordered index of float64 `x` rounded to nearest even; beyond the largest finite one: +-(max_code + 1).

    Integers are counted in float64, exactly: AVX2 converts no 64-bit integers, and compares few.
    """
    far = abs(x)
    binade = bits_of(max(far, from_bits((min_exponent + 1023) << 52))) & EXPONENT
    significand = np.rint(min(far * from_bits(((mantissa_bits + 2046) << 52) - binade), 2.0**30))  # at most 2**24
    steps = from_bits((binade >> 52) | INTEGER_BITS) - (2.0**52 + 1023 + min_exponent)
    code = min(steps * (1 << mantissa_bits) + significand, max_code + 1.0)
    return np.int64(np.int32(-code if x < 0 else code))


@kernel(inline="always")
def value_of(index, mantissa_bits, min_exponent):
    """Float64 value of an ordered index (exact for every grid up to float32)."""
    smallest = from_bits((min_exponent + 1023) << 52)
    value = from_bits((abs(index) << (52 - mantissa_bits)) + ((min_exponent + 1022) << 52))
    value = value if value >= smallest else 2.0 * value - smallest  # without a leading bit
    return -value if index < 0 else value


@kernel()
def round_to_index(x, mantissa_bits, min_exponent, max_code, out):
    """out[i] = index_of(x[i]) for a flat array of finite values."""
    for i in range(x.size):
        out[i] = index_of(np.float64(x[i]), mantissa_bits, min_exponent, max_code)


@kernel()
def values_of(index, mantissa_bits, min_exponent, out):
    """out[i] = value_of(index[i]) for a flat array."""
    for i in range(index.size):
        out[i] = value_of(np.int64(index[i]), mantissa_bits, min_exponent)


@kernel(inline="always")
def perturbed(base, z, sigma, float32):
    """``base + z * sigma`` as float64; `float32`: z, its product and the sum are each rounded to float32."""
    if float32:
        return np.float64(np.float32(np.float32(base) + np.float32(np.float32(z) * np.float32(sigma))))
    return base + z * sigma


@kernel()
def perturb(base, z, sigma, float32, mantissa_bits, min_exponent, max_code, out):
    """Write ordered indices of `perturbed` components, base [dim] and z [n, dim], to out; return how many overflow."""
    overflows = 0
    for i in range(z.shape[0]):
        for d in range(z.shape[1]):
            index = index_of(perturbed(base[d], z[i, d], sigma, float32), mantissa_bits, min_exponent, max_code)
            overflows += abs(index) > max_code
            out[i, d] = index
    return overflows


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
            scale = scales[i, g]
            bias = biases[i, g]
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
