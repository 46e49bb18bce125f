"""Kernels of `distances`: values of rows, distances of pairs, their sums and counts, and the graph of near rows.

Nothing waits for the device. Every figure is a maximum or a sum of integers: the order of threads changes none.
"""

import triton
import triton.language as tl

from ..by_torch import distances

TILE = tl.constexpr(distances.TILE)  # rows of x
WIDE = tl.constexpr(64)  # columns of x that a program fills
LATER = tl.constexpr(128)  # later rows of a tile of distances


@triton.jit
def fill_values(codes, home, rows, x, n, m, dim, columns, shape: tl.constexpr, steps: tl.constexpr):
    """x[t, tile, d, lane] of WIDE columns of a tile: program (columns / WIDE, tile, trial)."""
    t = tl.program_id(2).to(tl.int64)
    lanes = tl.program_id(1) * TILE + tl.arange(0, TILE)
    places = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    chosen = tl.load(rows + t * m + lanes, mask=lanes < m, other=0)
    inside = (lanes < m)[:, None] & (places < dim)[None, :]
    chosen = tl.maximum(chosen, 0)[:, None]
    code = tl.load(codes + (t * n + chosen) * dim + places[None, :], mask=inside, other=0).to(tl.int64)
    index = code + tl.load(home + t * dim + places, mask=places < dim, other=0)[None, :]
    value = index.to(x.dtype.element_ty) if steps else _value_of(index.to(tl.int32), shape[0], shape[1])
    value = tl.where(inside, value, 0)
    base = x + (t * tl.num_programs(1) + tl.program_id(1)) * columns * TILE
    to = base + places[:, None] * TILE + tl.arange(0, TILE)[None, :]
    tl.store(to, tl.trans(value), mask=(places < columns)[:, None])


@triton.jit
def _value_of(index, mantissa_bits: tl.constexpr, min_exponent: tl.constexpr):
    """float32 value of an ordered index, exactly."""
    code = tl.abs(index)
    if min_exponent == -126:  # float32's own exponents
        value = (code << (23 - mantissa_bits)).to(tl.float32, bitcast=True)
    else:
        binade = tl.maximum((code >> mantissa_bits) - 1, 0)
        scale = ((binade + (min_exponent - mantissa_bits + 127)) << 23).to(tl.float32, bitcast=True)
        value = (code - (binade << mantissa_bits)).to(tl.float32) * scale
    return tl.where(index < 0, -value, value)


@triton.jit
def _lower(words):
    return words.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _upper(words):
    return (words >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _joined(lower, upper):
    low = lower.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (upper.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low


@triton.jit
def compare_pairs(
    x,
    counts,
    out,
    tiles,
    columns,
    words: tl.constexpr,
    row_words: tl.constexpr,
    later_words: tl.constexpr,
    down: tl.constexpr,
    across: tl.constexpr,
    unroll: tl.constexpr,
    packed: tl.constexpr,
):
    """Distances of a tile of pairs: program (tile, trial). x, out in words: two float32 each (`packed`), or a float64.

    words is how many a column of a tile of x has. The accumulators' last two axes are threads, the first two registers:
    a thread loads few words for many differences, and no lane's twice for one column.
    """
    pair: tl.constexpr = 2 if packed else 1
    tiles_across = tiles * words // (later_words * across)
    top = tl.program_id(0) // tiles_across * (row_words * down)
    left = tl.program_id(0) % tiles_across * (later_words * across)
    t = tl.program_id(1).to(tl.int64)
    if (left + later_words * across > top) & (tl.maximum(top, left) * pair < tl.load(counts + t)):
        ri = tl.arange(0, row_words)[:, None, None, None]
        rj = tl.arange(0, later_words)[None, :, None, None]
        ti = tl.arange(0, down)[None, None, :, None]
        tj = tl.arange(0, across)[None, None, None, :]
        i = ri * down + ti
        j = rj * across + tj
        a_at = x + (t * tiles + top // words) * columns * words + top % words + i
        b_at = x + (t * tiles + left // words) * columns * words + left % words + j
        ll = tl.zeros((row_words, later_words, down, across), tl.float32 if packed else tl.float64)
        lu = ll
        ul = ll
        uu = ll
        for _ in tl.range(0, columns, unroll, num_stages=1):
            for u in tl.static_range(unroll):
                a = tl.load(a_at + u * words)
                b = tl.load(b_at + u * words)
                if packed:
                    ll = tl.maximum(ll, tl.abs(_lower(a) - _lower(b)))
                    lu = tl.maximum(lu, tl.abs(_lower(a) - _upper(b)))
                    ul = tl.maximum(ul, tl.abs(_upper(a) - _lower(b)))
                    uu = tl.maximum(uu, tl.abs(_upper(a) - _upper(b)))
                else:
                    ll = tl.maximum(ll, tl.abs(a - b))
            a_at += unroll * words
            b_at += unroll * words
        to = out + (t * (tiles * words) + (top + i)) * pair * (tiles * words) + left + j
        if packed:
            tl.store(to, _joined(ll, lu))
            tl.store(to + tiles * words, _joined(ul, uu))
        else:
            tl.store(to, ll)


@triton.jit
def _tile(distances, weights, m_pad, height: tl.constexpr):
    """Of program (tile, trial): its distances, which of them are above the diagonal, and its rows' weights.

    Where no such pair is, all later rows weigh nothing and the distances are not read.
    """
    across = m_pad // LATER
    t = tl.program_id(1).to(tl.int64)
    start, j = tl.program_id(0) // across * height, tl.program_id(0) % across * LATER
    i = start + tl.arange(0, height)
    j += tl.arange(0, LATER)
    theirs = tl.load(weights + t * m_pad + j, mask=j > start, other=0)
    ours = tl.load(weights + t * m_pad + i)
    later = (j[None, :] > i[:, None]) & (theirs > 0)[None, :] & (ours > 0)[:, None]
    at = distances + (t * m_pad + start + tl.arange(0, height)[:, None]) * m_pad + j[None, :]
    return tl.load(at, mask=later, other=0), later, ours, theirs, i, j, t


@triton.jit
def tally_tile(distances, weights, largest, sums, m_pad, height: tl.constexpr):
    """largest[t]: the bits of the largest distance; sums[t]: exact parts of the distances' sum."""
    d, _, ours, theirs, _, _, t = _tile(distances, weights, m_pad, height)
    if tl.max(theirs) > 0:
        if d.dtype == tl.float32:
            bits = d.to(tl.int32, bitcast=True)
            tl.atomic_max(largest + t, tl.max(bits), sem="relaxed")
            exponent = bits >> 23
            mantissa = (bits & 0x7FFFFF) + tl.where(exponent > 0, 0x800000, 0)
            weighed = mantissa.to(tl.int64) * ours[:, None]
            lowest = tl.min(tl.where(bits > 0, exponent, 255))
            for e in range(lowest, tl.max(exponent) + 1):
                of_rows = tl.sum(tl.where(exponent == e, weighed, 0), axis=0)
                tl.atomic_add(sums + t * 256 + e, tl.sum(of_rows * theirs), sem="relaxed")
        else:
            tl.atomic_max(largest + t, tl.max(d.to(tl.int64, bitcast=True)), sem="relaxed")
            steps = d.to(tl.int64)
            lower = tl.sum((steps & 0xFFFF) * ours[:, None], axis=0)
            upper = tl.sum((steps >> 16) * ours[:, None], axis=0)
            tl.atomic_add(sums + t * 2, tl.sum(lower * theirs), sem="relaxed")
            tl.atomic_add(sums + t * 2 + 1, tl.sum(upper * theirs), sem="relaxed")


@triton.jit
def count_near(distances, weights, limits, live, counts, groups, m_pad, n_limits: tl.constexpr, height: tl.constexpr):
    """counts[t, g, k]: pairs <= limits[t, g, k], of the groups g that are live[t, g]; n_limits is a power of two.

    A thread goes down one column with all limits: sums meet at the end only.
    """
    across = m_pad // LATER
    t = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) // across * height
    j = tl.program_id(0) % across * LATER + tl.arange(0, LATER)
    theirs = tl.load(weights + t * m_pad + j, mask=j > start, other=0)
    if tl.max(theirs) > 0:
        k = tl.arange(0, n_limits)
        ours = weights + t * m_pad + start
        present = tl.arange(0, height)
        last = tl.max(tl.where(tl.load(ours + present) > 0, present, -1))
        ahead = j - start
        rows = distances + (t * m_pad + start) * m_pad + j
        for group in range(t * groups, (t + 1) * groups):
            if tl.load(live + group) > 0:
                limit = tl.load(limits + group * n_limits + k)[:, None]
                near = tl.zeros((n_limits, LATER), tl.int32)  # all rows' weights sum to less than 2**31
                for row in tl.range(0, last + 1, loop_unroll_factor=8):
                    d = tl.load(rows + row * m_pad, mask=ahead > row, other=float("nan"))
                    near += tl.where(d[None, :] <= limit, tl.load(ours + row).to(tl.int32), 0)
                total = tl.sum(near.to(tl.int64) * theirs[None, :], axis=1)
                tl.atomic_add(counts + group * n_limits + k, total, sem="relaxed")


@triton.jit
def add_degrees(distances, weights, limit, degrees, parents, m_pad, height: tl.constexpr):
    """Degrees of the pairs <= limit, and to each row's parent the first row near to it."""
    d, later, ours, theirs, i, j, t = _tile(distances, weights, m_pad, height)
    near = later & (d <= tl.load(limit))
    if tl.max(near.to(tl.int32)) > 0:
        one = tl.sum(tl.where(near, theirs.to(tl.int32)[None, :], 0), axis=1)
        other = tl.sum(tl.where(near, ours.to(tl.int32)[:, None], 0), axis=0)
        tl.atomic_add(degrees + t * m_pad + i, one.to(tl.int64), mask=one > 0, sem="relaxed")
        tl.atomic_add(degrees + t * m_pad + j, other.to(tl.int64), mask=other > 0, sem="relaxed")
        nearest = tl.min(tl.where(near, i[:, None], m_pad), axis=0)
        tl.atomic_min(parents + t * m_pad + j, nearest, mask=nearest < m_pad, sem="relaxed")


@triton.jit
def unite(distances, weights, limit, parents, m_pad, height: tl.constexpr):
    """Link the trees of the rows of every pair <= limit; parents are never later than their rows.

    The later of two ancestors, u, gets the earlier, v, as its parent, if that is earlier than the one it has. If u was
    a root, that is all; else the parent it had (or has) and v are to be united: both are earlier, so this ends.
    """
    d, later, _, _, i, j, t = _tile(distances, weights, m_pad, height)
    near = later & (d <= tl.load(limit))
    if tl.max(near.to(tl.int32)) > 0:
        trial = parents + t * m_pad
        one = tl.load(trial + i, cache_modifier=".cg")[:, None]
        other = tl.load(trial + j, cache_modifier=".cg")[None, :]
        u, v = tl.maximum(one, other), tl.minimum(one, other)
        apart = near & (u != v)
        while tl.max(apart.to(tl.int32)) > 0:
            had = tl.atomic_min(trial + u, v, mask=apart, sem="relaxed")
            apart = apart & (had != u) & (had != v)
            u, v = tl.where(apart, tl.maximum(had, v), u), tl.where(apart, tl.minimum(had, v), v)
