"""L-infinity distances of all pairs of rows of T trials, in plain torch: the twin of `by_triton.distances`.

A trial's rows are padded to a multiple of `TILE`, m_pad. weights [T, m_pad] int64 says how many equal rows a row stands
for, and 0 where a trial has no row; they sum to less than 2**31. A pair counts as the product of its rows' weights.
Distances [T, rows, m_pad] are those of rows first, first + 1, ... to all; only what lies above the diagonal is read.
Codes are finite. A difference may overflow to infinity, which then is the distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

TILE = 128  # rows
COLUMNS = 8  # that the number of columns is padded to a multiple of
Blocks = Callable[[], Iterable[tuple[int, Tensor]]]


def values(codes: Tensor, home: Tensor, rows: Tensor, unit: str, shape: tuple[int, int, int]) -> Tensor:
    """Return the numbers whose differences are distances, in tiles: x [T, m_pad / TILE, dim_pad, TILE], padded with 0.

    Parameters
    ----------
    codes : [T, n, dim] int8, int16 or int32: ordered indices less home
    home : [T, dim] int64
    rows : [T, m] int64, which rows of a trial are compared; -1 beyond those that it has
    unit : "weight": float32 values; "steps": indices, float32 (float64 where the grid has more than 2**16)
    shape : mantissa_bits, min_exponent, max_code of the grid
    """
    mantissa_bits, min_exponent, max_code = shape
    dim, m = codes.shape[2], rows.shape[1]
    chosen = rows.clamp(min=0)[:, :, None].expand(-1, -1, dim)
    index = codes.gather(1, chosen).to(torch.int64) + home[:, None]
    if unit == "steps":
        x = index.to(torch.float64 if max_code >= 1 << 15 else torch.float32)
    else:
        x = _value_of(index, mantissa_bits, min_exponent)
    x = torch.nn.functional.pad(x, (0, -dim % COLUMNS, 0, -m % TILE))
    return x.unflatten(1, (x.shape[1] // TILE, TILE)).transpose(2, 3).contiguous()


def _value_of(index: Tensor, mantissa_bits: int, min_exponent: int) -> Tensor:
    """Return the float32 value of an ordered index, exactly, as `darkvocab.numerics.index_values`."""
    code = index.abs()
    if min_exponent == -126:  # float32's own exponents
        value = (code << (23 - mantissa_bits)).to(torch.int32).view(torch.float32)
    else:
        binade = ((code >> mantissa_bits) - 1).clamp(min=0)
        scale = ((binade + (min_exponent - mantissa_bits + 127)) << 23).to(torch.int32).view(torch.float32)
        value = (code - (binade << mantissa_bits)).to(torch.float32) * scale
    return torch.where(index < 0, -value, value)


def all_pairs(x: Tensor, counts: Tensor, first: int = 0, rows: int | None = None) -> Tensor:
    """Compare rows first, first + 1, ... with all: [T, rows, m_pad], specified above the diagonal and within `counts`.

    Parameters
    ----------
    x : from `values`
    counts : [T] int64, the rows of each trial
    first, rows : multiples of TILE; all rows from `first` on by default
    """
    trials, tiles, columns, _ = x.shape
    size = rows_of(x, first, rows)
    flat = x.transpose(1, 2).reshape(trials, columns, tiles * TILE)
    out = x.new_zeros(trials, size, tiles * TILE)
    for d in range(columns):
        column = flat[:, d]
        out = torch.fmax(out, (column[:, first : first + size, None] - column[:, None, :]).abs())
    return out


def rows_of(x: Tensor, first: int, rows: int | None) -> int:
    """Return the number of rows of distances from `first` on."""
    later = x.shape[1] * TILE - first
    if first % TILE or (rows or 0) % TILE or later < 0:
        raise ValueError(f"blocks of rows start and end at multiples of {TILE} of x's, got {first}, {rows}")
    return later if rows is None else min(rows, later)


def tally(distances: Tensor, weights: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return the largest distance [T] and exact sums, which `darkvocab.numerics.totals.exact_total` adds up.

    Sums are int64: for float32 [T, 256], of each exponent the integer mantissas times weights; for float64 (integers
    below 2**33) [T, 2], of the lower 16 bits and of those above. Of blocks: the larger one, and the sums' sum.
    """
    pairs = _pairs(distances, weights, first)
    lengths = torch.where(pairs > 0, distances, 0)
    largest = lengths.flatten(1).amax(1) if lengths[0].numel() else lengths.new_zeros(len(lengths))
    if lengths.dtype == torch.float64:
        steps = lengths.to(torch.int64)
        return largest, torch.stack([(part * pairs).sum((1, 2)) for part in (steps & 0xFFFF, steps >> 16)], dim=1)
    bits = lengths.view(torch.int32).to(torch.int64)
    exponent = bits >> 23
    mantissa = (bits & 0x7FFFFF) + (exponent > 0) * 0x800000
    sums = weights.new_zeros(len(weights), 256)
    return largest, sums.scatter_add_(1, exponent.flatten(1), (mantissa * pairs).flatten(1))


def _pairs(distances: Tensor, weights: Tensor, first: int) -> Tensor:
    """Return how often each pair counts, [T, rows, m_pad]; 0 unless above the diagonal."""
    size = distances.shape[1]
    return torch.triu(weights[:, first : first + size, None] * weights[:, None, :], 1 + first)


def within(distances: Tensor, weights: Tensor, equal: Tensor, limits: Tensor, first: int = 0) -> Tensor:
    """Count the pairs at a distance <= each limit, [T, k] int64; of blocks, the sum.

    Parameters
    ----------
    equal : [T] int64, pairs of distance 0 to be added
    limits : [k], or [T, k], in the distances' type
    """
    pairs = _pairs(distances, weights, first)
    limits = limits.expand(len(weights), -1)
    near = [(pairs * (distances <= limit[:, None, None])).sum((1, 2)) for limit in limits.unbind(1)]
    return torch.stack(near, dim=1) + equal[:, None] * (limits >= 0)


def ranked(distances: Tensor | Blocks, weights: Tensor, equal: Tensor, ranks: Tensor) -> Tensor:
    """Find the distances of these ranks from 0 among all pairs, exactly: [T, k] in the distances' type.

    By bisection of the bits, which non-negative floats are in the order of; 0 where a rank is negative.

    Parameters
    ----------
    distances : of all rows, or a function that gives blocks (first, distances) anew at each call
    equal : [T] int64, pairs of distance 0 to be added
    ranks : [T, k] int64, below the number of pairs
    """
    blocks = as_blocks(distances)
    float_type = next((block.dtype for _, block in blocks()), torch.float32)
    bits = torch.int32 if float_type == torch.float32 else torch.int64
    infinity = torch.tensor(torch.inf, dtype=float_type).view(bits).item()
    low, high = torch.zeros_like(ranks), torch.full_like(ranks, infinity)
    for _ in range(infinity.bit_length()):
        middle = low + (high - low) // 2
        limits = middle.to(bits).view(float_type)
        below = sum((within(block, weights, equal * 0, limits, first) for first, block in blocks()), equal[:, None])
        low, high = torch.where(below > ranks, low, middle + 1), torch.where(below > ranks, middle, high)
        low = torch.minimum(low, high)
    return low.to(bits).view(float_type)


def as_blocks(distances: Tensor | Blocks) -> Blocks:
    return (lambda: ((0, distances),)) if isinstance(distances, Tensor) else distances


def connect(distances: Tensor | Blocks, weights: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return degrees and labels, [T, m_pad] int64, of the graph of rows at a distance <= limit.

    A row that stands for several has the others of its kind as neighbours, too. A label is the first row of a row's
    component; rows beyond the trial's have degree 0 and their own label.

    Parameters
    ----------
    distances : as in `ranked`
    limit : in the distances' type
    """
    blocks = as_blocks(distances)
    degrees = (weights - 1).clamp(min=0)
    rows = torch.arange(weights.shape[1], device=weights.device)
    labels = rows.expand_as(weights).contiguous()
    for first, block in blocks():
        near = _near(block, weights, first, limit)
        some = slice(first, first + block.shape[1])
        degrees[:, some] += (near * weights[:, None, :]).sum(2)
        degrees += (near * weights[:, some, None]).sum(1)
    before = torch.full_like(labels, -1)
    while not torch.equal(labels, before):
        before = labels
        for first, block in blocks():
            near = _near(block, weights, first, limit)
            some = slice(first, first + block.shape[1])
            least = labels.clone()
            if near[0].numel():
                least[:, some] = least[:, some].minimum(torch.where(near, labels[:, None, :], len(rows)).amin(2))
                least = least.minimum(torch.where(near, labels[:, some, None], len(rows)).amin(1))
            labels = least.scatter_reduce(1, labels, least, "amin")  # a label's own row takes its rows' least
        labels = labels.gather(1, labels)
    return degrees, labels


def _near(distances: Tensor, weights: Tensor, first: int, limit: float) -> Tensor:
    return (_pairs(distances, weights, first) > 0) & (distances <= limit)
