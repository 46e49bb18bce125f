"""Random deviates in Triton: `_backends.deviates`, bit for bit. Compile with enable_fp_fusion=False."""

import math

import triton
import triton.language as tl

from ...numerics._backends import deviates

DENSE, TAIL = tl.constexpr(int(deviates.DENSE)), tl.constexpr(int(deviates.TAIL))
LOW_TAIL, HIGH_TAIL = tl.constexpr(int(deviates.LOW_TAIL)), tl.constexpr(int(deviates.HIGH_TAIL))
_TURN = tl.constexpr(math.tau / 2**32)


@triton.jit
def float64(x: tl.constexpr):
    """A constant with all its digits: `tl.fma` takes a bare number for a float32."""
    return tl.full([], x, tl.float64)


@triton.jit
def twice_artanh(s):
    t = s * s
    series = tl.fma(t, float64(1 / 17), float64(1 / 15))
    for i in tl.static_range(6):
        series = tl.fma(series, t, float64(1 / (13 - 2 * i)))
    return 2.0 * tl.fma(s * t, series, s)


@triton.jit
def log(x):
    """Natural logarithm of a normal float64 > 0."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).to(tl.float64, bitcast=True)
    high = mantissa > 1.4142135623730951
    mantissa = tl.where(high, mantissa * 0.5, mantissa)
    exponent = tl.where(high, exponent + 1, exponent).to(tl.float64)
    return tl.fma(exponent, float64(0.6931471805599453), twice_artanh((mantissa - 1.0) / (mantissa + 1.0)))


@triton.jit
def turn(word):
    """Cosine and sine of ``(word + 1/2) / 2**32`` of a full turn; word uint32."""
    quarter = (word + 536870912) >> 30
    x = ((word - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float64) + 0.5) * _TURN
    t = x * x
    sine = tl.fma(t, float64(-1 / 1307674368000), float64(1 / 6227020800))
    sine = tl.fma(sine, t, float64(-1 / 39916800))
    sine = tl.fma(sine, t, float64(1 / 362880))
    sine = tl.fma(sine, t, float64(-1 / 5040))
    sine = tl.fma(sine, t, float64(1 / 120))
    sine = tl.fma(sine, t, float64(-1 / 6))
    sine = tl.fma(x * t, sine, x)
    cosine = tl.fma(t, float64(1 / 20922789888000), float64(-1 / 87178291200))
    cosine = tl.fma(cosine, t, float64(1 / 479001600))
    cosine = tl.fma(cosine, t, float64(-1 / 3628800))
    cosine = tl.fma(cosine, t, float64(1 / 40320))
    cosine = tl.fma(cosine, t, float64(-1 / 720))
    cosine = tl.fma(cosine, t, float64(1 / 24))
    cosine = tl.fma(cosine, t, float64(-1 / 2))
    cosine = tl.fma(cosine, t, float64(1.0))
    across = (quarter & 1) != 0
    one, other = tl.where(across, sine, cosine), tl.where(across, cosine, sine)
    return tl.where((quarter == 1) | (quarter == 2), -one, one), tl.where(quarter >= 2, -other, other)


@triton.jit
def normal_pair(word, angle, number, live, seed, c1, c2, c3):
    """Two normal deviates from a word for their radius and one for their angle; `number` is the word's of its row."""
    p = (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10
    rare = (word < LOW_TAIL) & live
    if tl.max(rare.to(tl.int32)) > 0:
        more, _, _, _ = tl.philox(seed, (number | TAIL).to(tl.uint32), c1, c2, c3)
        p = tl.where(rare, _of_64_bits(word, more), p)
    radius = tl.sqrt(-2.0 * log(p))
    cosine, sine = turn(angle)
    return radius * cosine, radius * sine


@triton.jit
def laplace_of(word, number, live, seed, c1, c2, c3):
    """A Laplace deviate of standard deviation 1 from a word; as `normal_pair`."""
    q = (word.to(tl.float64) - 2147483647.5) * 2.3283064365386963e-10
    p = 0.5 - tl.abs(q)
    rare = ((word < LOW_TAIL) | (word >= HIGH_TAIL)) & live
    if tl.max(rare.to(tl.int32)) > 0:
        more, _, _, _ = tl.philox(seed, (number | TAIL).to(tl.uint32), c1, c2, c3)
        p = tl.where(rare, _of_64_bits(tl.where(word < LOW_TAIL, word, word ^ 0xFFFFFFFF), more), p)
    z = log(2.0 * p) * -0.7071067811865476
    return tl.where(q < 0, -z, z)


@triton.jit
def _of_64_bits(word, more):
    return (word.to(tl.float64) * 4294967296.0 + more.to(tl.float64) + 0.5) * 5.421010862427522e-20
