"""Drawing grid cells under noise, compiled: cell thresholds and the sparse sampler."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .deviates import philox
from .rounding import from_bits, index_of, value_of

LANES = 1024  # tokens drawn from one buffer of 128 generator blocks
RARE = np.uint64(1 << 59)  # of 2**64: columns that move less often than 1 in 32 are drawn by the gaps between moves


@njit(nogil=True, cache=True)
def cell_ranges(base, reach, sigma, float32, mantissa_bits, min_exponent, max_code, home, low, high):  # type: ignore[no-untyped-def]
    """Index of every component without noise (`home`) and under noise of -+`reach` standard deviations.

    `float32`: the float32 chain ``f32(base + f32(z * sigma))``; else the float64 sum. Returns the number of overflows.
    """
    overflows = 0
    for d in range(base.size):
        home[d] = index_of(base[d], mantissa_bits, min_exponent, max_code)
        low[d] = index_of(_perturbed(base[d], -reach, sigma, float32), mantissa_bits, min_exponent, max_code)
        high[d] = index_of(_perturbed(base[d], reach, sigma, float32), mantissa_bits, min_exponent, max_code)
        overflows += low[d] < -max_code or high[d] > max_code
    return overflows


@njit(nogil=True, cache=True, inline="always")
def _perturbed(base, z, sigma, float32):  # type: ignore[no-untyped-def]
    if float32:
        return np.float64(np.float32(np.float32(base) + np.float32(np.float32(z) * np.float32(sigma))))
    return base + z * sigma


@njit(nogil=True, cache=True, inline="always")
def _float32_of(order):  # type: ignore[no-untyped-def]
    """The float32 whose ordered index is `order`."""
    return from_bits(np.int32(order if order >= 0 else -order | -0x80000000))


@njit(nogil=True, cache=True)
def cell_thresholds(base, low, high, sigma, float32, mantissa_bits, min_exponent, out):  # type: ignore[no-untyped-def]
    """For every column and every cell low < k <= high: the normal deviate from which a component is in cell k or above.

    A real z. In the float32 chain z itself is rounded to float32 first, so the threshold is the midpoint below the
    smallest float32 that reaches the cell, found by bisection over the ordered float32 values (the chain is monotone).
    `out` is flat, column after column.
    """
    t = 0
    top = 0x42800000  # ordered index of float32 64.0, beyond any deviate
    for d in range(base.size):
        for k in range(low[d] + 1, high[d] + 1):
            below = value_of(k - 1, mantissa_bits, min_exponent)
            boundary = (below + value_of(k, mantissa_bits, min_exponent)) / 2
            if not float32:
                out[t] = (boundary - base[d]) / sigma
            else:
                upward_tie = k % 2 == 0
                miss, hit = np.int64(-top), np.int64(top)
                while hit - miss > 1:
                    middle = (hit + miss) >> 1
                    x = _perturbed(base[d], np.float64(_float32_of(middle)), sigma, True)
                    if x > boundary or (upward_tie and x == boundary):
                        hit = middle
                    else:
                        miss = middle
                out[t] = (np.float64(_float32_of(miss)) + np.float64(_float32_of(hit))) / 2
            t += 1


@njit(nogil=True, cache=True)
def cdf_words(z, laplace, out):  # type: ignore[no-untyped-def]
    """out[i] = round(2**64 * P(deviate < z[i])): the uniform 64-bit word from which the deviate is at least z.

    Standard normal, or Laplace of standard deviation 1. Full relative precision in both tails; clipped to
    [0, 2**64 - 1].
    """
    for i in range(z.size):
        far = abs(z[i])
        tail = 0.5 * math.exp(-far * math.sqrt(2.0)) if laplace else 0.5 * math.erfc(far / math.sqrt(2.0))
        word = np.uint64(np.rint(tail * 2.0**64))  # tail <= 1/2
        out[i] = word if z[i] < 0 else np.uint64(0xFFFFFFFFFFFFFFFF) - max(word, np.uint64(1)) + np.uint64(1)


@njit(nogil=True, cache=True, inline="always")
def _cell(u, thresholds):  # type: ignore[no-untyped-def]
    """How many thresholds the uniform 64-bit word has reached."""
    cell = 0
    for t in range(thresholds.size):
        cell += u >= thresholds[t]
    return cell


@njit(nogil=True, cache=True)
def draw_sparse(columns, shift, starts, thresholds, seed_low, seed_high, point, trial, out):  # type: ignore[no-untyped-def]
    """Offsets from home of every token's component in the active columns.

    columns [active] original column numbers; shift [active] = low - home; thresholds of column j are
    ``thresholds[starts[j]:starts[j+1]]`` (ascending 64-bit words); out [n_tokens, >= active] int8, zeros.

    A column that moves often: 16 random bits a token, 48 more where they tie with a threshold's. A column that moves
    seldom: geometric gaps between the tokens that leave home, then which cell, given that it left. Every draw is a
    function of (seed, point, trial, column, token block), so it does not depend on what else is drawn.
    """
    n = out.shape[0]
    key0, key1 = np.uint64(seed_low), np.uint64(seed_high)
    c2, c3 = np.uint64(point), np.uint64(trial)
    words = np.empty((4, LANES // 8), np.uint32)
    lanes = words.reshape(-1).view(np.uint16)
    cells = np.empty(LANES, np.uint8)
    ties = np.empty(LANES, np.uint8)
    for chunk in range(0, n, LANES):
        size = min(LANES, n - chunk)
        for j in range(columns.size):
            edges = thresholds[starts[j] : starts[j + 1]]
            if _away(edges, -shift[j]) < RARE:
                continue
            c1 = np.uint64(columns[j])
            first = np.uint64(chunk // 8)
            for b in range(LANES // 8):
                w0, w1, w2, w3 = philox(first + np.uint64(b), c1, c2, c3, key0, key1)
                words[0, b] = np.uint32(w0)
                words[1, b] = np.uint32(w1)
                words[2, b] = np.uint32(w2)
                words[3, b] = np.uint32(w3)
            cells[:] = 0
            ties[:] = 0
            for t in range(edges.size):
                edge = np.uint16(edges[t] >> np.uint64(48))
                for i in range(LANES):
                    cells[i] += lanes[i] > edge
                    ties[i] |= lanes[i] == edge
            for i in range(size):
                if ties[i]:
                    w0, w1, w2, w3 = philox(np.uint64(chunk + i), c1 | np.uint64(1 << 30), c2, c3, key0, key1)
                    tail = ((w0 & np.uint64(0xFFFF)) << np.uint64(32)) | w1
                    out[chunk + i, j] = shift[j] + _cell((np.uint64(lanes[i]) << np.uint64(48)) | tail, edges)
                else:
                    out[chunk + i, j] = shift[j] + cells[i]
    for j in range(columns.size):
        edges = thresholds[starts[j] : starts[j + 1]]
        away = _away(edges, -shift[j])
        if away == 0 or away >= RARE:
            continue
        scale = 1.0 / math.log1p(-np.float64(away) * 2.0**-64)
        below = edges[-shift[j] - 1] if shift[j] < 0 else np.uint64(0)
        above = edges[-shift[j]] if -shift[j] < edges.size else np.uint64(0)  # none above: 2**64, never used
        token = -1.0
        block = np.uint64(0)
        while True:
            w0, w1, w2, w3 = philox(block, np.uint64(columns[j]) | np.uint64(1 << 31), c2, c3, key0, key1)
            block += np.uint64(1)
            uniform = (np.float64((w0 << np.uint64(20)) | (w1 >> np.uint64(12))) + 0.5) * 2.0**-52
            token += 1.0 + math.floor(math.log(uniform) * scale)
            if token >= n:
                break
            u = _scaled(w2, w3, away)
            if u >= below:
                u = u - below + above
            out[np.int64(token), j] = shift[j] + _cell(u, edges)


@njit(nogil=True, cache=True, inline="always")
def _away(edges, home):  # type: ignore[no-untyped-def]
    """2**64 times the probability that a component leaves its home cell (cell number `home` of its column)."""
    below = edges[home - 1] if home > 0 else np.uint64(0)
    above = np.uint64(0) - edges[home] if home < edges.size else np.uint64(0)
    return below + above


@njit(nogil=True, cache=True, inline="always")
def _scaled(high, low, n):  # type: ignore[no-untyped-def]
    """The 64-bit fraction 0.(high)(low) times n, rounded down: uniform over 0 .. n - 1."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    n_high, n_low = n >> half, n & mask
    middle = high * n_low + ((low * n_low) >> half)
    return high * n_high + (middle >> half) + ((low * n_high + (middle & mask)) >> half)
