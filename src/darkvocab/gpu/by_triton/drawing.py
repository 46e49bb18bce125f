"""Draw in Triton: `_backends.deviates`, `_backends.drawing` and `_backends.rounding`, without waiting for the device.

Tensors are C-contiguous, of up to 65,535 trials. Bit for bit: IEEE operations in the CPU kernels' order, fused where
they are (`tl.fma`) and nowhere else, hence the launches' option. Triton's interpreter fuses too from its version 3.9;
before, it differs in about one of a billion elements.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...numerics._backends import deviates, drawing

EXACT = {"enable_fp_fusion": False}
DENSE_BLOCK = tl.constexpr(128)  # generator blocks of four elements
TILE_BLOCKS = tl.constexpr(16)  # generator blocks of eight tokens in a tile
TILE_LANES = tl.constexpr(32)  # lanes in it
CHUNK_TOKENS = tl.constexpr(drawing.LANES)
CHUNK_BLOCKS = tl.constexpr(drawing.LANES // 8)
_INTEGER = tl.constexpr(2.0**52)  # added to a smaller number >= 0, it rounds that to an integer, half to even, ...
_INTEGER_BITS = tl.constexpr(0x4330000000000000)  # ... in the low bits of the sum


def draw_dense(bases, which, sigmas, points, trials, seed, *, laplace, float32, stream, shape, out) -> Tensor:
    """Draw the ordered indices of the rows ``round(base + sigma z)`` of every trial, z Gaussian or Laplace.

    Returns how many components of each trial overflow the grid, [T] int64.

    Parameters
    ----------
    bases : [kinds, dim] float64, weight units; which [T] int64, the base of each trial; sigmas [T] float64
    points, trials : [T] int64, from 0 to 2**32 - 1
    seed : from 0 to 2**64 - 1
    float32 : z, sigma z and the sum are each rounded to float32 before the grid's rounding
    stream : 0 or 1, of a trial's two
    out : [T, n, dim] signed integers as wide as the grid's words; filled
    """
    n_trials, n, dim = out.shape
    overflows = torch.zeros(n_trials, dtype=torch.int64, device=out.device)
    blocks = (dim + 3) // 4
    if out.numel():
        grid = triton.cdiv(n * blocks, DENSE_BLOCK.value), n_trials
        kind = stream, laplace, float32, shape
        of_trials = which, sigmas, points, trials
        dense_kernel[grid](bases, of_trials, seed, out, overflows, n, dim, blocks, kind, **EXACT)
    return overflows


def draw_sparse(lanes, seed, codes) -> None:
    """Draw the offsets from home of every token's component in the lanes' columns.

    codes [T, n, places] signed integers, zeros; filled in place.
    """
    tables = lanes.tensors(codes.device)
    _, n, places = codes.shape
    tiles = triton.cdiv(n, drawing.LANES) * (drawing.LANES // 8) // TILE_BLOCKS.value
    of_rows = tables.points, tables.trials, tables.column, tables.place, tables.shift, tables.starts, tables.edges
    if len(lanes.often) and n:
        grid = triton.cdiv(len(lanes.often), TILE_LANES.value), tiles
        often_kernel[grid](tables.often, len(lanes.often), of_rows, seed, codes, n, places, **EXACT)
    if len(lanes.seldom) and n:
        grid = triton.cdiv(len(lanes.seldom), TILE_LANES.value), 1
        gaps = tables.away, tables.below, tables.above, tables.scale
        work = tables.seldom, len(lanes.seldom), of_rows, gaps, seed, codes, n, places
        seldom_kernel[grid](*work, num_warps=1, **EXACT)


@triton.jit
def index_of(x, shape: tl.constexpr):
    """Ordered index of a float64, int64, on a grid of this shape; beyond the largest finite one: +-(max_code + 1)."""
    mantissa_bits: tl.constexpr = shape[0]
    min_exponent: tl.constexpr = shape[1]
    bits = x.to(tl.int64, bitcast=True)
    exponent = tl.maximum(((bits >> 52) & 0x7FF) - 1023, min_exponent)
    scale = ((mantissa_bits + 1023 - exponent) << 52).to(tl.float64, bitcast=True)
    rounded = tl.minimum(tl.abs(x) * scale, 1073741824.0) + _INTEGER
    code = ((exponent - min_exponent) << mantissa_bits) + (rounded.to(tl.int64, bitcast=True) - _INTEGER_BITS)
    code = tl.minimum(code, shape[2] + 1)
    return tl.where(bits < 0, -code, code)


@triton.jit
def store(z, base, sigma, out, live, float32: tl.constexpr, shape: tl.constexpr):
    """Store the indices of ``base + sigma z``, float64; returns how many overflow."""
    x = base + z * sigma
    if float32:
        x = (base.to(tl.float32) + z.to(tl.float32) * sigma.to(tl.float32)).to(tl.float64)
    index = index_of(x, shape)
    tl.store(out, index.to(out.dtype.element_ty), mask=live)
    return tl.sum((live & (tl.abs(index) > shape[2])).to(tl.int32))


@triton.jit(do_not_specialize=["seed", "n", "dim", "blocks"])
def dense_kernel(bases, of_trials, seed: tl.uint64, out, overflows, n, dim, blocks, kind: tl.constexpr):
    which, sigmas, points, trials = of_trials
    stream: tl.constexpr = kind[0]
    is_laplace: tl.constexpr = kind[1]
    float32: tl.constexpr = kind[2]
    shape: tl.constexpr = kind[3]
    t = tl.program_id(1).to(tl.int64)
    # A generator block of the trial; rows follow each other without gaps.
    first = tl.program_id(0).to(tl.int64) * DENSE_BLOCK
    first_row = first // blocks
    i = (first - first_row * blocks).to(tl.int32) + tl.arange(0, DENSE_BLOCK)
    row = first_row + i // blocks
    b = i % blocks
    live = row < n
    c1 = row.to(tl.uint32) | (stream << 31)
    c2 = tl.load(points + t).to(tl.uint32)
    c3 = tl.load(trials + t).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, (b | DENSE).to(tl.uint32), c1, c2, c3)
    if is_laplace:
        z0 = laplace_of(w0, b, live, seed, c1, c2, c3)
        z1 = laplace_of(w1, b + blocks, live, seed, c1, c2, c3)
        z2 = laplace_of(w2, b + 2 * blocks, live, seed, c1, c2, c3)
        z3 = laplace_of(w3, b + 3 * blocks, live, seed, c1, c2, c3)
    else:
        z0, z1 = normal_pair(w0, w1, b, live, seed, c1, c2, c3)
        z2, z3 = normal_pair(w2, w3, b + 2 * blocks, live, seed, c1, c2, c3)
    z = z0, z1, z2, z3
    sigma = tl.load(sigmas + t)
    base = bases + tl.load(which + t) * dim + b
    to = out + (t * n + row) * dim + b
    count = tl.full([], 0, tl.int32)
    for plane in tl.static_range(4):
        inside = live & (b + plane * blocks < dim)
        x = tl.load(base + plane * blocks, mask=inside, other=0.0)
        count += store(z[plane], x, sigma, to + plane * blocks, inside, float32, shape)
    tl.atomic_add(overflows + t, count.to(tl.int64), mask=count > 0, sem="relaxed")


@triton.jit
def _word(pointer, mask):
    """A word of 64 bits, of which tensors hold the bit pattern."""
    return tl.load(pointer, mask=mask, other=0).to(tl.uint64, bitcast=True)


@triton.jit
def _lanes(lanes, n_lanes, tables, n, places):
    """Lanes of the first axis of programs: which there are, their rows, counters, lowest cells, edges and codes."""
    points, trials, columns, place, shift, starts, edges = tables
    lane = tl.program_id(0) * TILE_LANES + tl.arange(0, TILE_LANES)
    live = lane < n_lanes
    t = tl.load(lanes + 2 * lane, mask=live, other=0)
    row = tl.load(lanes + 2 * lane + 1, mask=live, other=0)
    c1 = tl.load(columns + row, mask=live, other=0).to(tl.uint32)
    c2 = tl.load(points + t, mask=live, other=0).to(tl.uint32)
    c3 = tl.load(trials + t, mask=live, other=0).to(tl.uint32)
    lowest = tl.load(shift + row, mask=live, other=0).to(tl.int32)
    start, stop = tl.load(starts + row, mask=live, other=0), tl.load(starts + row + 1, mask=live, other=0)
    to = t.to(tl.int64) * n * places + tl.load(place + row, mask=live, other=0)
    return live, row, c1, c2, c3, lowest, edges + start, (stop - start).to(tl.int32), to


@triton.jit(do_not_specialize=["seed", "n", "n_lanes", "places"])
def often_kernel(lanes, n_lanes, tables, seed: tl.uint64, codes, n, places):
    """Columns that move often: tiles of [generator blocks, lanes], so that neighbours store into one row of codes."""
    number = tl.program_id(1) * TILE_BLOCKS
    start = number // CHUNK_BLOCKS * CHUNK_TOKENS
    if start + 2 * (number % CHUNK_BLOCKS) < n:  # else all its tokens lie beyond the last
        live, _row, c1, c2, c3, lowest, edge, n_edges, to = _lanes(lanes, n_lanes, tables, n, places)
        c1, c2, c3, lowest, to = c1[None, :], c2[None, :], c3[None, :], lowest[None, :], (codes + to)[None, :]
        block = number + tl.arange(0, TILE_BLOCKS)
        first = start + 2 * (block % CHUNK_BLOCKS)
        w0, w1, w2, w3 = tl.philox(seed, block.to(tl.uint32)[:, None], c1, c2, c3)
        most = tl.max(n_edges)
        for _plane in range(4):  # planes of a chunk
            for half in tl.static_range(2):
                token = first[:, None] + half
                inside = (token < n) & live[None, :]
                upper = ((w0 >> (16 * half)) & 0xFFFF).to(tl.int32)
                cell = tl.zeros([TILE_BLOCKS, TILE_LANES], tl.int32)
                ties = tl.zeros([TILE_BLOCKS, TILE_LANES], tl.int1)
                for e in range(0, most):
                    at = (_word(edge + e, e < n_edges) >> 48).to(tl.int32)
                    at = tl.where(e < n_edges, at, 65536)[None, :]  # beyond every half word
                    cell += (upper >= at).to(tl.int32)
                    ties |= upper == at
                ties &= inside
                if tl.max(ties.to(tl.int32)) > 0:
                    v0, v1, _, _ = tl.philox(seed, token.to(tl.uint32), c1 | 1073741824, c2, c3)
                    u = (upper.to(tl.uint64) << 48) | ((v0 & 0xFFFF).to(tl.uint64) << 32) | v1.to(tl.uint64)
                    cell = tl.where(ties, 0, cell)
                    for e in range(0, most):
                        reached = u >= _word(edge + e, e < n_edges)[None, :]
                        cell += (ties & reached & (e < n_edges)[None, :]).to(tl.int32)
                tl.store(to + token.to(tl.int64) * places, (lowest + cell).to(codes.dtype.element_ty), mask=inside)
            w0, w1, w2 = w1, w2, w3
            first += CHUNK_TOKENS // 4


@triton.jit(do_not_specialize=["seed", "n", "n_lanes", "places"])
def seldom_kernel(lanes, n_lanes, tables, gaps, seed: tl.uint64, codes, n, places):
    """Columns that move seldom, by the gaps between moves: a thread follows one lane to its end."""
    away, below, above, scale = gaps
    live, row, c1, c2, c3, lowest, edge, n_edges, to = _lanes(lanes, n_lanes, tables, n, places)
    c1 = c1 | 2147483648
    leaves = _word(away + row, live)
    low = _word(below + row, live)
    high = _word(above + row, live)
    factor = tl.load(scale + row, mask=live, other=0.0)
    token = tl.where(live, -1.0, n.to(tl.float64))
    block = tl.zeros([TILE_LANES], tl.uint32)
    while tl.min(token) < n:
        w0, w1, w2, w3 = tl.philox(seed, block, c1, c2, c3)
        block += 1
        word = (w0.to(tl.uint64) << 20) | (w1 >> 12).to(tl.uint64)
        uniform = (word.to(tl.int64, bitcast=True).to(tl.float64) + 0.5) * 2.220446049250313e-16
        token = tl.where(token < n, token + (1.0 + tl.floor(log(uniform) * factor)), token)
        inside = token < n
        n_high, n_low = leaves >> 32, leaves & 0xFFFFFFFF
        u_high, u_low = w2.to(tl.uint64), w3.to(tl.uint64)
        middle = u_high * n_low + ((u_low * n_low) >> 32)
        u = u_high * n_high + (middle >> 32) + ((u_low * n_high + (middle & 0xFFFFFFFF)) >> 32)
        u = tl.where(u >= low, u - low + high, u)
        cell = tl.zeros([TILE_LANES], tl.int32)
        for e in range(0, tl.max(n_edges)):
            cell += ((u >= _word(edge + e, live & (e < n_edges))) & (e < n_edges)).to(tl.int32)
        at = tl.where(inside, token, 0.0).to(tl.int64)
        tl.store(codes + to + at * places, (lowest + cell).to(codes.dtype.element_ty), mask=inside)


DENSE = tl.constexpr(int(deviates.DENSE))
TAIL = tl.constexpr(int(deviates.TAIL))
LOW_TAIL, HIGH_TAIL = tl.constexpr(int(deviates.LOW_TAIL)), tl.constexpr(int(deviates.HIGH_TAIL))
_TURN = tl.constexpr(math.tau / 2**32)
SINE = tl.constexpr(deviates.SINE)
COSINE = tl.constexpr(deviates.COSINE)


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
    sine = float64(1 / SINE[0])
    for i in tl.static_range(1, 7):
        sine = tl.fma(sine, t, float64(1 / SINE[i]))
    sine = tl.fma(x * t, sine, x)
    cosine = float64(1 / COSINE[0])
    for i in tl.static_range(1, 9):
        cosine = tl.fma(cosine, t, float64(1 / COSINE[i]))
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
