"""L-infinity distances of all pairs of rows of T trials, in Triton.

A trial's rows are padded to m_pad, a multiple of `TILE_ROWS`. weights [T, m_pad] int64: how many equal rows each stands
for, 0 where a trial has no row; they sum to less than 2**31. A pair counts as the product of its rows' weights;
equal [T] int64 are pairs of distance 0 to be added. Of distances [T, m_pad, m_pad] only what lies above the diagonal is
read. Codes are finite; a difference may overflow to infinity, which then is the distance. Nothing waits for the device.
Every figure is a maximum or a sum of integers: the order of threads changes none.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_ROWS = 128  # of x
COLUMN_MULTIPLE = 8  # a multiple of which the columns are padded to
EXACT = {"enable_fp_fusion": False}
PIVOTS = 16  # limits with which a pass makes the range of a rank 16 times smaller
TILE_HEIGHT = 32  # rows of a tile of distances, in most kernels that read them


class Shape(NamedTuple):
    """Work of one program of `all_pairs`: warps * 32 threads have row_words x later_words words of 64 bits each.

    A word is two float32 of neighbouring rows, or one float64. `across` threads lie side by side along later rows. Its
    rows, and its later rows, are at most TILE_ROWS.
    """

    row_words: int
    later_words: int
    across: int
    warps: int
    unroll: int  # columns, a divisor of COLUMN_MULTIPLE

    @property
    def rows(self) -> int:
        """Words of rows of one program."""
        return self.row_words * (self.warps * 32 // self.across)

    @property
    def later(self) -> int:
        return self.later_words * self.across


SHAPES = {torch.float32: Shape(4, 4, 8, 2, 4), torch.float64: Shape(4, 4, 8, 2, 2)}


def values(codes: Tensor, home: Tensor, rows: Tensor, unit: str, shape: tuple[int, int, int]) -> Tensor:
    """Return the numbers whose differences are distances: x [T, tiles, dim_pad, TILE_ROWS], padded with 0.

    Parameters
    ----------
    codes : [T, n, dim] int8, int16 or int32: ordered indices less home
    home : [T, dim] int64
    rows : [T, m] int64, which rows of a trial are compared; -1 beyond those that it has
    unit : "weight": float32 values; "steps": indices, float32 (float64 where the grid has more than 2**16)
    shape : mantissa_bits, min_exponent, max_code of the grid
    """
    trials, n, dim = codes.shape
    m = rows.shape[1]
    steps = unit == "steps"
    dtype = torch.float64 if steps and shape[2] >= 1 << 15 else torch.float32
    columns = dim + -dim % COLUMN_MULTIPLE
    x = torch.empty(trials, triton.cdiv(m, TILE_ROWS), columns, TILE_ROWS, dtype=dtype, device=codes.device)
    if x.numel():
        grid = triton.cdiv(columns, FILLED_COLUMNS.value), x.shape[1], trials
        arguments = codes.contiguous(), home.contiguous(), rows.contiguous(), x, n, m, dim, columns
        fill_values[grid](*arguments, shape, steps, num_warps=8, **EXACT)
    return x


def all_pairs(x: Tensor, counts: Tensor, shape: Shape | None = None) -> Tensor:
    """Compare all rows of x, from `values`, by programs of a `shape` for its type: [T, m_pad, m_pad].

    Of trial t only the first counts[t] rows, [T] int64, need be compared.
    """
    trials, tiles, columns, _ = x.shape
    shape = shape or SHAPES[x.dtype]
    m_pad = tiles * TILE_ROWS
    pair = 2 if x.dtype == torch.float32 else 1
    out = torch.empty(trials, m_pad, m_pad, dtype=x.dtype, device=x.device)
    if out.numel():
        words = torch.int64 if pair == 2 else torch.float64
        grid = m_pad // (pair * shape.rows) * (m_pad // (pair * shape.later)), trials
        arrays = x.contiguous().view(words), counts.contiguous(), out.view(words)
        work = TILE_ROWS // pair, tuple(shape), pair == 2
        compare_pairs[grid](*arrays, tiles, columns, *work, num_warps=shape.warps, **EXACT)
    return out


def tally(distances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest distance [T] and exact sums, which `darkvocab.numerics.chebyshev.exact_total` adds up.

    Sums are int64: for float32 [T, 256], of each exponent the integer mantissas times weights; for float64 (integers
    below 2**33) [T, 2], of the lower 16 bits and of those above.
    """
    bits, parts = (torch.int32, 256) if distances.dtype == torch.float32 else (torch.int64, 2)
    largest = torch.zeros(len(weights), dtype=bits, device=weights.device)
    sums = weights.new_zeros(len(weights), parts)
    _over_tiles(tally_tile, distances, weights, largest, sums, warps=8)
    return largest.view(distances.dtype), sums


def _over_tiles(kernel, distances, weights, *others, height=TILE_HEIGHT, warps=4, **constants) -> None:
    trials, m_pad, _ = distances.shape
    distances = distances.contiguous()
    weights = weights.contiguous()
    if distances.numel():
        settings = {**constants, "height": height, "num_warps": warps, **EXACT}
        kernel[m_pad // height * (m_pad // LATER_ROWS.value), trials](distances, weights, *others, m_pad, **settings)


def _count(distances, weights, limits, live, counts, groups) -> None:
    n_limits = limits.shape[-1]
    _over_tiles(count_near, distances, weights, limits, live, counts, groups, n_limits=n_limits, height=2 * TILE_HEIGHT)


def within(distances: Tensor, weights: Tensor, equal: Tensor, limits: Tensor) -> Tensor:
    """Count the pairs at a distance <= each of the limits, [k] or [T, k] in the distances' type: [T, k] int64."""
    n_limits = limits.shape[-1]
    room = triton.next_power_of_2(max(n_limits, 1)) - n_limits
    limits = torch.nn.functional.pad(limits.expand(len(weights), -1), (0, room), value=-1.0).contiguous()
    counts = equal[:, None] * (limits >= 0)
    _count(distances, weights, limits, torch.ones(len(weights), dtype=torch.int32, device=weights.device), counts, 1)
    return counts[:, :n_limits]


def ranked(distances: Tensor, weights: Tensor, equal: Tensor, ranks: Tensor) -> Tensor:
    """Find the distances of these ranks from 0 among all pairs, exactly: [T, k] in the distances' type.

    By bits, whose order is that of non-negative floats. Ranks, [T, k] int64, are below the number of pairs; 0 where
    one is negative.
    """
    float_type = distances.dtype
    bits, infinity = (torch.int32, 0x7F8 << 20) if float_type == torch.float32 else (torch.int64, 0x7FF << 52)
    low, high = torch.zeros_like(ranks), torch.full_like(ranks, infinity)
    place = torch.arange(ranks.shape[1], device=ranks.device)
    share = torch.arange(1, PIVOTS + 1, device=ranks.device)
    for _ in range(triton.cdiv(infinity.bit_length(), PIVOTS.bit_length() - 1)):
        width = (high - low)[:, :, None]
        pivots = low[:, :, None] + width // PIVOTS * share + width % PIVOTS * share // PIVOTS  # without overflow
        # Ranks with one range are counted for once, and none that is settled.
        same = (low[:, :, None] == low[:, None]) & (high[:, :, None] == high[:, None])
        first = same.long().argmax(2)
        live = (first == place) & (low < high)
        counts = torch.zeros_like(pivots)
        _count(distances, weights, pivots.to(bits).view(float_type), live.int(), counts, ranks.shape[1])
        counts = counts.gather(1, first[:, :, None].expand_as(counts)) + equal[:, None, None]
        reached = counts > ranks[:, :, None]
        low = torch.where(reached, low[:, :, None], pivots + 1).amax(2).minimum(high)
        high = torch.where(reached, pivots, high[:, :, None]).amin(2)
    return low.to(bits).view(float_type)


def connect(distances: Tensor, weights: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return degrees and labels, [T, m_pad] int64, of the graph of rows at a distance <= limit, of distances' type.

    A row that stands for several has the others of its kind as neighbours, too. A label is the first row of a row's
    component; rows beyond the trial's have degree 0 and their own label.
    """
    degrees = (weights - 1).clamp(min=0).contiguous()
    parents = torch.arange(weights.shape[1], dtype=torch.int32, device=weights.device).expand_as(weights).contiguous()
    bound = torch.full((1,), limit, dtype=distances.dtype, device=distances.device)
    _over_tiles(add_degrees, distances, weights, bound, degrees, parents)
    parents = _flat(parents)
    _over_tiles(unite, distances, weights, bound, parents)
    return degrees, _flat(parents).to(torch.int64)


def _flat(parents: Tensor) -> Tensor:
    """Return every row's root as its parent: each step doubles how far up a row looks."""
    for _ in range(parents.shape[1].bit_length()):
        parents = parents.gather(1, parents.to(torch.int64))
    return parents


_TILE_ROWS = tl.constexpr(TILE_ROWS)  # rows of x
FILLED_COLUMNS = tl.constexpr(64)  # columns of x that a program fills
LATER_ROWS = tl.constexpr(128)  # later rows of a tile of distances


@triton.jit
def fill_values(codes, home, rows, x, n, m, dim, columns, shape: tl.constexpr, steps: tl.constexpr):
    """x[t, tile, d, lane] of FILLED_COLUMNS columns of a tile: program (columns / FILLED_COLUMNS, tile, trial)."""
    t = tl.program_id(2).to(tl.int64)
    lanes = tl.program_id(1) * _TILE_ROWS + tl.arange(0, _TILE_ROWS)
    places = tl.program_id(0) * FILLED_COLUMNS + tl.arange(0, FILLED_COLUMNS)
    chosen = tl.load(rows + t * m + lanes, mask=lanes < m, other=0)
    inside = (lanes < m)[:, None] & (places < dim)[None, :]
    chosen = tl.maximum(chosen, 0)[:, None]
    code = tl.load(codes + (t * n + chosen) * dim + places[None, :], mask=inside, other=0).to(tl.int64)
    index = code + tl.load(home + t * dim + places, mask=places < dim, other=0)[None, :]
    value = index.to(x.dtype.element_ty) if steps else _value_of(index.to(tl.int32), shape[0], shape[1])
    value = tl.where(inside, value, 0)
    base = x + (t * tl.num_programs(1) + tl.program_id(1)) * columns * _TILE_ROWS
    to = base + places[:, None] * _TILE_ROWS + tl.arange(0, _TILE_ROWS)[None, :]
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
def compare_pairs(x, counts, out, tiles, columns, words: tl.constexpr, shape: tl.constexpr, packed: tl.constexpr):
    """Distances of a tile of pairs: program (tile, trial). x, out in words: two float32 each (`packed`), or a float64.

    words is how many a column of a tile of x has. The accumulators' last two axes are threads, the first two registers:
    a thread loads few words for many differences, and no lane's twice for one column.
    """
    row_words: tl.constexpr = shape[0]
    later_words: tl.constexpr = shape[1]
    across: tl.constexpr = shape[2]
    down: tl.constexpr = shape[3] * 32 // across
    unroll: tl.constexpr = shape[4]
    pair: tl.constexpr = 2 if packed else 1
    tiles_across = tiles * words // (later_words * across)
    top = tl.program_id(0) // tiles_across * (row_words * down)
    left = tl.program_id(0) % tiles_across * (later_words * across)
    t = tl.program_id(1).to(tl.int64)
    if (left + later_words * across > top) & (tl.maximum(top, left) * pair < tl.load(counts + t)):
        i = tl.arange(0, row_words)[:, None, None, None] * down + tl.arange(0, down)[None, None, :, None]
        j = tl.arange(0, later_words)[None, :, None, None] * across + tl.arange(0, across)[None, None, None, :]
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
    """Return for program (tile, trial) its distances, which of them are above the diagonal, and its rows' weights.

    Where no such pair is, all later rows weigh nothing and the distances are not read.
    """
    across = m_pad // LATER_ROWS
    t = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) // across * height
    j = tl.program_id(0) % across * LATER_ROWS
    i = start + tl.arange(0, height)
    j += tl.arange(0, LATER_ROWS)
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
    across = m_pad // LATER_ROWS
    t = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) // across * height
    j = tl.program_id(0) % across * LATER_ROWS + tl.arange(0, LATER_ROWS)
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
                near = tl.zeros((n_limits, LATER_ROWS), tl.int32)  # all rows' weights sum to less than 2**31
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
