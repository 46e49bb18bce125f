"""Rounding to a number grid in Triton: `_backends.rounding`, bit for bit. Compile with enable_fp_fusion=False."""

from __future__ import annotations

import triton
import triton.language as tl

_INTEGER = tl.constexpr(2.0**52)  # added to a smaller number >= 0, it rounds that to an integer, half to even, ...
_INTEGER_BITS = tl.constexpr(0x4330000000000000)  # ... in the low bits of the sum


@triton.jit
def index_of(x, MANTISSA_BITS: tl.constexpr, MIN_EXPONENT: tl.constexpr, MAX_CODE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Ordered index of a float64, int64; beyond the largest finite one: +-(max_code + 1)."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = tl.maximum(((bits >> 52) & 0x7FF) - 1023, MIN_EXPONENT)
    scale = ((MANTISSA_BITS + 1023 - exponent) << 52).to(tl.float64, bitcast=True)
    rounded = tl.minimum(tl.abs(x) * scale, 1073741824.0) + _INTEGER
    code = ((exponent - MIN_EXPONENT) << MANTISSA_BITS) + (rounded.to(tl.int64, bitcast=True) - _INTEGER_BITS)
    code = tl.minimum(code, MAX_CODE + 1)
    return tl.where(bits < 0, -code, code)
