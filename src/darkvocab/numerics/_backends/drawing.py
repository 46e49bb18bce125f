"""Drawing grid cells under noise, compiled: runs of cells, their thresholds, and the sparse sampler.

A run is a block of neighbouring cells that noise hardly tells apart.
"""

import math

import numpy as np

from .compilation import kernel
from .deviates import fill_words, log, log1p, philox
from .rounding import bits_of, from_bits, index_of, perturbed, value_of

LANES = 1024  # tokens drawn from one buffer of 128 generator blocks
RARE = np.uint64(1 << 59)  # of 2**64: columns that move less often than 1 in 32 are drawn by the gaps between moves


@kernel(inline="always")
def _threshold(k, base, sigma, float32, mantissa_bits, min_exponent):
    """Return the deviate from which a component is in cell k or above.

    With `float32`, z itself is rounded to float32 first, so the threshold is the midpoint below the smallest float32
    that reaches the cell. It is searched from the real threshold on, by steps that double and then halve, over the
    ordered float32 values: `perturbed` is monotone in z.
    """
    boundary = value_of(2 * k - 1, mantissa_bits + 1, min_exponent)  # a number of the grid of half the spacing
    real = (boundary - base) / sigma
    if not float32:
        return real
    hit = np.int64(0x49800000)  # ordered index of float32 2**20, beyond any deviate
    miss = -hit
    step = 1
    bits = np.int64(bits_of(np.float32(min(max(real, -1048575.0), 1048575.0))))
    order = bits if bits >= 0 else -(bits & 0x7FFFFFFF)
    while hit - miss > 1:
        x = perturbed(base, value_of(order, 23, -126), sigma, True)
        if x > boundary or (k % 2 == 0 and x == boundary):
            hit = order
            order -= step
        else:
            miss = order
            order += step
        step *= 2
        if order <= miss or order >= hit:
            order = (hit + miss) >> 1
    return value_of(hit + miss, 24, -126)


@kernel()
def _run_end(k, width, mantissa_bits, min_exponent):
    """Last cell of the run that cell k begins: an aligned block of its binade no wider than `width`, or k alone.

    A power of two, whose cell is narrower than those above it, is always alone.
    """
    code = abs(k)
    mantissa = (1 << mantissa_bits) - 1
    if code & mantissa == 0:
        return k
    spacing = from_bits((max((code >> mantissa_bits) - 1, 0) + min_exponent - mantissa_bits + 1023) << 52)
    size = 1 << min(max((bits_of(width / spacing) >> 52) - 1023, 0), mantissa_bits)
    if k >= 0:
        return k | (size - 1)
    end = max(code & -size, 1)
    return -end if end & mantissa else -end - 1


@kernel()
def run_edges(low, high, width, mantissa_bits, min_exponent, max_code, starts, last):
    """Count the runs of every column's cells low..high; within 2**-12 of `width` around zero all cells are one run.

    starts [columns + 1]; last [runs] gets their last cells, unless it is empty.
    """
    near = index_of(width * 2.0**-12, mantissa_bits, min_exponent, max_code)
    n = 0
    for d in range(low.size):
        starts[d] = n
        k = low[d]
        while k <= high[d]:
            end = near if abs(k) <= near else _run_end(k, width, mantissa_bits, min_exponent)
            end = min(end, high[d])
            if k < -near:
                end = min(end, -near - 1)
            if last.size:
                last[n] = end
            n += 1
            k = end + 1
    starts[low.size] = n
    return n


@kernel()
def edge_deviates(base, starts, last, sigma, float32, mantissa_bits, min_exponent, out):
    """Write the `_threshold` beyond each run to out; the entry of a column's last run is left as it is."""
    for d in range(base.size):
        for run in range(starts[d], starts[d + 1] - 1):
            out[run] = _threshold(last[run] + 1, base[d], sigma, float32, mantissa_bits, min_exponent)


@kernel()
def cdf_words(z, laplace, out):
    """out[i] = round(2**64 * P(deviate < z[i])): the uniform 64-bit word from which the deviate is at least z.

    Standard normal, or Laplace of standard deviation 1. Full relative precision in both tails; at most 2**64 - 1.
    """
    for i in range(z.size):
        far = abs(z[i])
        tail = 0.5 * math.exp(-far * math.sqrt(2.0)) if laplace else 0.5 * math.erfc(far / math.sqrt(2.0))
        word = np.uint64(np.rint(tail * 2.0**64))  # tail <= 1/2
        out[i] = word if z[i] < 0 else np.uint64(0xFFFFFFFFFFFFFFFF) - max(word, np.uint64(1)) + np.uint64(1)


@kernel(inline="always")
def _cell(u, thresholds):
    """Count the thresholds that the uniform 64-bit word has reached."""
    cell = 0
    for t in range(thresholds.size):
        cell += u >= thresholds[t]
    return cell


def room():
    """Return what `draw_sparse` works in; to allocate there takes longer to compile."""
    words = np.empty((4, LANES // 8), np.uint32)
    return words, words.reshape(-1).view(np.uint16), *np.empty((2, LANES), np.uint8)


@kernel()
def draw_sparse(columns, shift, starts, thresholds, seed_low, seed_high, point, trial, out, words, lanes, cells, ties):
    """Offsets from home of every token's component in the active columns.

    columns [active] original column numbers; shift [active] = low - home; thresholds of column j are
    ``thresholds[starts[j]:starts[j+1]]`` (ascending 64-bit words); out [n_tokens, >= active] int8, zeros. The last four
    are `room`.

    A column that moves often: 16 random bits a token, 48 more where they tie with a threshold's. A column that moves
    seldom: geometric gaps between the tokens that leave home, then which cell, given that it left. Every draw is a
    function of (seed, point, trial, column, token block), so it does not depend on what else is drawn.
    """
    n = out.shape[0]
    key0, key1 = np.uint64(seed_low), np.uint64(seed_high)
    c2 = np.uint64(point)
    c3 = np.uint64(trial)
    for chunk in range(0, n, LANES):
        size = min(LANES, n - chunk)
        for j in range(columns.size):
            edges = thresholds[starts[j] : starts[j + 1]]
            away, _, _ = _leaving(edges, -shift[j])
            if away < RARE:
                continue
            c1 = np.uint64(columns[j])
            fill_words(np.uint64(chunk // 8), c1, c2, c3, key0, key1, words)
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
        away, below, above = _leaving(edges, -shift[j])
        if away == 0 or away >= RARE:
            continue
        scale = _gap_scale(away)
        token = -1.0
        block = np.uint64(0)
        while True:
            w0, w1, w2, w3 = philox(block, np.uint64(columns[j]) | np.uint64(1 << 31), c2, c3, key0, key1)
            block += np.uint64(1)
            uniform = (np.float64((w0 << np.uint64(20)) | (w1 >> np.uint64(12))) + 0.5) * 2.0**-52
            token += 1.0 + math.floor(log(uniform) * scale)
            if token >= n:
                break
            u = _scaled(w2, w3, away)
            if u >= below:
                u = u - below + above
            out[np.int64(token), j] = shift[j] + _cell(u, edges)


@kernel()
def leaving(shift, starts, thresholds, away, below, above, scale):
    """Derive from each column's thresholds how often it moves, and its gaps where that is seldom, for `draw_sparse`.

    away, below, above [active] uint64 as `_leaving`; scale [active] float64, 0 where a column has no gaps to draw.
    """
    for j in range(shift.size):
        away[j], below[j], above[j] = _leaving(thresholds[starts[j] : starts[j + 1]], -shift[j])
        scale[j] = _gap_scale(away[j]) if 0 < away[j] < RARE else 0.0


@kernel(inline="always")
def _leaving(edges, home):
    """Return how a component leaves its home cell, cell number `home` of its column, as 64-bit words.

    2**64 times the probability that it does, the part of it that is below, and the word from which it is above, or 0.
    """
    below = edges[home - 1] if home > 0 else np.uint64(0)
    above = edges[home] if home < edges.size else np.uint64(0)
    return below - above, below, above


@kernel(inline="always")
def _gap_scale(away):
    """Return the factor from the logarithm of a uniform number to the length of a gap between moves; negative."""
    return 1.0 / log1p(np.float64(away) * -(2.0**-64))


@kernel(inline="always")
def _scaled(high, low, n):
    """Multiply the 64-bit fraction 0.(high)(low) by n and round down: uniform over 0 .. n - 1."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    n_high, n_low = n >> half, n & mask
    middle = high * n_low + ((low * n_low) >> half)
    return high * n_high + (middle >> half) + ((low * n_high + (middle & mask)) >> half)
