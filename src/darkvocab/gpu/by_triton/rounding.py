"""Rounding to a number grid in Triton: `_backends.rounding`, bit for bit. Compile with enable_fp_fusion=False."""

from __future__ import annotations

import triton
import triton.language as tl

_INTEGER = tl.constexpr(2.0**52)  # added to a smaller number >= 0, it rounds that to an integer, half to even, ...
_INTEGER_BITS = tl.constexpr(0x4330000000000000)  # ... in the low bits of the sum


@triton.jit
def index_of(x, mantissa_bits: tl.constexpr, min_exponent: tl.constexpr, max_code: tl.constexpr):
    """Ordered index of a float64, int64; beyond the largest finite one: +-(max_code + 1)."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = tl.maximum(((bits >> 52) & 0x7FF) - 1023, min_exponent)
    scale = ((mantissa_bits + 1023 - exponent) << 52).to(tl.float64, bitcast=True)
    rounded = tl.minimum(tl.abs(x) * scale, 1073741824.0) + _INTEGER
    code = ((exponent - min_exponent) << mantissa_bits) + (rounded.to(tl.int64, bitcast=True) - _INTEGER_BITS)
    code = tl.minimum(code, max_code + 1)
    return tl.where(bits < 0, -code, code)
