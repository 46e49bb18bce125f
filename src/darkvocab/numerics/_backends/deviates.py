"""Random deviates, compiled: a counter-based generator, quantile functions, and whole rows of a snowball.

Float64 operations in a fixed order, fused only where it says so: the same bits on every machine.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .rounding import float64_bits, float64_from_bits, fma, index_of

GAUSSIAN, LAPLACE, BALL, SHELL = range(4)
DENSE, TAIL, RADIUS = (np.uint64(flag << 29) for flag in (1, 2, 3))  # streams of a row: no counter is used twice
LOW_TAIL, HIGH_TAIL = np.uint32(1 << 20), np.uint32(2**32 - (1 << 20))  # beyond, words are given 32 bits more


@njit(nogil=True, cache=True, forceinline=True)
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Philox4x32-10: four 32-bit words from a counter and a key.

    J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a normal float64 > 0, without a branch: ``2 artanh((m - 1) / (m + 1)) + e log 2``."""
    bits = float64_bits(x)
    exponent = (bits >> 52) - 1023
    mantissa = float64_from_bits((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    high = mantissa > 1.4142135623730951
    mantissa = mantissa * 0.5 if high else mantissa
    exponent = exponent + 1 if high else exponent
    s = (mantissa - 1.0) / (mantissa + 1.0)
    t = s * s
    series = 1 / 17
    series = fma(series, t, 1 / 15)
    series = fma(series, t, 1 / 13)
    series = fma(series, t, 1 / 11)
    series = fma(series, t, 1 / 9)
    series = fma(series, t, 1 / 7)
    series = fma(series, t, 1 / 5)
    series = fma(series, t, 1 / 3)
    return fma(exponent * 1.0, 0.6931471805599453, 2.0 * fma(s * t, series, s))


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def normal_quantile(q, p):  # type: ignore[no-untyped-def]
    """Standard normal deviate of the probability 1/2 + q, where p = 1/2 - abs(q) >= 1.4e-11; relative error 1e-14.

    M. J. Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37, 1988
    (PPND16). Beyond, its third region is `far_normal_quantile`.
    """
    r = 0.180625 - q * q
    above = 2509.0809287301226727
    above = fma(above, r, 33430.575583588128105)
    above = fma(above, r, 67265.770927008700853)
    above = fma(above, r, 45921.953931549871457)
    above = fma(above, r, 13731.693765509461125)
    above = fma(above, r, 1971.5909503065514427)
    above = fma(above, r, 133.14166789178437745)
    above = fma(above, r, 3.387132872796366608)
    below = 5226.495278852854561
    below = fma(below, r, 28729.085735721942674)
    below = fma(below, r, 39307.89580009271061)
    below = fma(below, r, 21213.794301586595867)
    below = fma(below, r, 5394.1960214247511077)
    below = fma(below, r, 687.1870074920579083)
    below = fma(below, r, 42.313330701600911252)
    below = fma(below, r, 1.0)
    t = math.sqrt(-log(p)) - 1.6
    above_t = 7.7454501427834140764e-4
    above_t = fma(above_t, t, 0.0227238449892691845833)
    above_t = fma(above_t, t, 0.24178072517745061177)
    above_t = fma(above_t, t, 1.27045825245236838258)
    above_t = fma(above_t, t, 3.64784832476320460504)
    above_t = fma(above_t, t, 5.7694972214606914055)
    above_t = fma(above_t, t, 4.6303378461565452959)
    above_t = fma(above_t, t, 1.42343711074968357734)
    below_t = 1.05075007164441684324e-9
    below_t = fma(below_t, t, 5.475938084995344946e-4)
    below_t = fma(below_t, t, 0.0151986665636164571966)
    below_t = fma(below_t, t, 0.14810397642748007459)
    below_t = fma(below_t, t, 0.68976733498510000455)
    below_t = fma(below_t, t, 1.6763848301838038494)
    below_t = fma(below_t, t, 2.05319162663775882187)
    below_t = fma(below_t, t, 1.0)
    body = abs(q) <= 0.425
    z = (above * q if body else above_t) / (below if body else below_t)
    return -z if (not body) and q < 0 else z


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def far_normal_quantile(q, p):  # type: ignore[no-untyped-def]
    """As `normal_quantile`, for every p >= 2**-65."""
    t = math.sqrt(-log(p)) - 5.0
    if t <= 0:
        return normal_quantile(q, p)
    above = 2.01033439929228813265e-7
    above = fma(above, t, 2.71155556874348757815e-5)
    above = fma(above, t, 0.0012426609473880784386)
    above = fma(above, t, 0.026532189526576123093)
    above = fma(above, t, 0.29656057182850489123)
    above = fma(above, t, 1.7848265399172913358)
    above = fma(above, t, 5.4637849111641143699)
    above = fma(above, t, 6.6579046435011037772)
    below = 2.04426310338993978564e-15
    below = fma(below, t, 1.4215117583164458887e-7)
    below = fma(below, t, 1.8463183175100546818e-5)
    below = fma(below, t, 7.868691311456132591e-4)
    below = fma(below, t, 0.0148753612908506148525)
    below = fma(below, t, 0.13692988092273580531)
    below = fma(below, t, 0.59983220655588793769)
    below = fma(below, t, 1.0)
    z = above / below
    return -z if q < 0 else z


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def laplace_quantile(q, p):  # type: ignore[no-untyped-def]
    """Deviate of the Laplace distribution of standard deviation 1, as `normal_quantile`."""
    z = log(2.0 * p) * -0.7071067811865476
    return -z if q < 0 else z


@njit(nogil=True, cache=True, error_model="numpy")
def _words(row, stream, key0, key1, point, trial, out):  # type: ignore[no-untyped-def]
    """Random words of a row: out [4, blocks] uint32."""
    for b in range(out.shape[1]):
        w0, w1, w2, w3 = philox(np.uint64(b) | DENSE, row | stream, point, trial, key0, key1)
        out[0, b] = np.uint32(w0)
        out[1, b] = np.uint32(w1)
        out[2, b] = np.uint32(w2)
        out[3, b] = np.uint32(w3)


@njit(nogil=True, cache=True, error_model="numpy")
def _normals(words, z):  # type: ignore[no-untyped-def]
    for d in range(z.size):
        q = (np.float64(words[d]) - 2147483647.5) * 2.0**-32
        z[d] = normal_quantile(q, 0.5 - abs(q))


@njit(nogil=True, cache=True, error_model="numpy")
def _laplaces(words, z):  # type: ignore[no-untyped-def]
    for d in range(z.size):
        q = (np.float64(words[d]) - 2147483647.5) * 2.0**-32
        z[d] = laplace_quantile(q, 0.5 - abs(q))


@njit(nogil=True, cache=True, error_model="numpy")
def _rare(words, out):  # type: ignore[no-untyped-def]
    """Which words lie near either end of their range: their places into `out`, their number back."""
    count = 0
    for start in range(0, words.size, 64):
        chunk = words[start : start + 64]
        any_rare = False
        for word in chunk:
            any_rare |= (word < LOW_TAIL) | (word >= HIGH_TAIL)
        if any_rare:
            for i in range(chunk.size):
                if (chunk[i] < LOW_TAIL) | (chunk[i] >= HIGH_TAIL):
                    out[count] = start + i
                    count += 1
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def _tails(row, laplace, stream, key0, key1, point, trial, words, rare, z):  # type: ignore[no-untyped-def]
    """Draw deviates whose word is near either end again, from 64 bits."""
    for i in range(_rare(words, rare)):
        d = rare[i]
        low = words[d] < LOW_TAIL
        from_end = np.float64(words[d]) if low else 4294967295.0 - np.float64(words[d])
        w0, _, _, _ = philox(np.uint64(d) | TAIL, row | stream, point, trial, key0, key1)
        p = (from_end * 2.0**32 + np.float64(w0) + 0.5) * 2.0**-64
        q = p - 0.5 if low else 0.5 - p
        z[d] = laplace_quantile(q, p) if laplace else far_normal_quantile(q, p)


@njit(nogil=True, cache=True, error_model="numpy")
def row_deviates(row, laplace, stream, key0, key1, point, trial, words, rare, z):  # type: ignore[no-untyped-def]
    """Fill z [dim] with independent deviates of standard deviation 1 for one row; words [4, >= dim / 4] and
    rare [>= dim] are room.

    Column d takes word ``words.flat[d]``: 32 bits, so that no probability is off by more than 2**-33; words near either
    end of their range take 32 bits more from a counter of their own, so that tails are followed to p = 2**-65.
    """
    row = np.uint64(row)
    flat = words.reshape(-1)[: z.size]
    _words(row, stream, key0, key1, point, trial, words)
    if laplace:
        _laplaces(flat, z)
    else:
        _normals(flat, z)
    _tails(row, laplace, stream, key0, key1, point, trial, flat, rare, z)


@njit(nogil=True, cache=True, error_model="numpy")
def spread(row, ball, stream, key0, key1, point, trial, z):  # type: ignore[no-untyped-def]
    """Turn one row of normal deviates into one that is uniform in a ball, or on a sphere, of deviation 1 a component.

    The radius of the sphere is sqrt(dim), of the ball sqrt(dim + 2).
    """
    total = 0.0
    for d in range(z.size):
        total += z[d] * z[d]
    radius = math.sqrt(z.size)
    if ball:
        w0, w1, _, _ = philox(RADIUS, np.uint64(row) | stream, point, trial, key0, key1)
        uniform = (np.float64(w0) * 2.0**32 + np.float64(w1) + 0.5) * 2.0**-64
        radius = math.sqrt(z.size + 2) * math.exp(math.log(uniform) / z.size)
    scale = radius / math.sqrt(total)
    for d in range(z.size):
        z[d] *= scale


@njit(nogil=True, cache=True, error_model="numpy")
def draw_dense(base, sigma, distribution, float32, stream, seed, point, trial, shape, out):  # type: ignore[no-untyped-def]
    """Ordered indices of rows ``round(base + sigma z)``: out [n, dim]. Returns the number of overflows.

    base [dim] float64; `float32`: z, sigma z and the sum are each rounded to float32 before the grid's rounding. Row i
    is a function of (seed, stream, point, trial, i) and of how many columns there are, and of nothing else.
    """
    mantissa_bits, min_exponent, max_code = shape  # of the grid
    n, dim = out.shape
    key0, key1 = np.uint64(seed & np.uint64(0xFFFFFFFF)), np.uint64(seed >> np.uint64(32))
    c1, c2, c3 = np.uint64(stream) << np.uint64(31), np.uint64(point), np.uint64(trial)
    words = np.empty((4, (dim + 3) // 4), np.uint32)
    rare = np.empty(4 * words.shape[1], np.int64)
    z = np.empty(dim)
    sigma32 = np.float32(sigma)
    overflows = 0
    for i in range(n):
        row_deviates(i, distribution == LAPLACE, c1, key0, key1, c2, c3, words, rare, z)
        if distribution >= BALL:
            spread(i, distribution == BALL, c1, key0, key1, c2, c3, z)
        if float32:
            for d in range(dim):
                noise = np.float32(np.float32(z[d]) * sigma32)
                index = index_of(
                    np.float64(np.float32(np.float32(base[d]) + noise)), mantissa_bits, min_exponent, max_code
                )
                overflows += abs(index) > max_code
                out[i, d] = index
        else:
            for d in range(dim):
                index = index_of(base[d] + z[d] * sigma, mantissa_bits, min_exponent, max_code)
                overflows += abs(index) > max_code
                out[i, d] = index
    return overflows
