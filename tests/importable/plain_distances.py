"""L-infinity distances of all pairs of rows of T trials, in plain torch: the twin of `by_triton.distances`.

A trial's rows are padded to a multiple of `TILE`, m_pad. weights [T, m_pad] int64 says how many equal rows a row stands
for, and 0 where a trial has no row; they sum to less than 2**31. A pair counts as the product of its rows' weights;
equal [T] int64 are pairs of distance 0 to be added.
Of distances [T, m_pad, m_pad] only what lies above the diagonal is read. Codes are finite; a difference may overflow to
infinity, which then is the distance.
"""

import torch
from torch import Tensor

TILE = 128  # rows
COLUMNS = 8  # that the number of columns is padded to a multiple of


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


def all_pairs(x: Tensor, counts: Tensor) -> Tensor:
    """Compare all rows of x, from `values`: [T, m_pad, m_pad], specified above the diagonal.

    Of trial t only the first counts[t] rows, [T] int64, need be compared.
    """
    trials, tiles, columns, _ = x.shape
    flat = x.transpose(1, 2).reshape(trials, columns, tiles * TILE)
    out = x.new_zeros(trials, tiles * TILE, tiles * TILE)
    for d in range(columns):
        column = flat[:, d]
        out = torch.fmax(out, (column[:, :, None] - column[:, None, :]).abs())
    return out


def tally(distances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest distance [T] and exact sums, which `darkvocab.numerics.chebyshev.exact_total` adds up.

    Sums are int64: for float32 [T, 256], of each exponent the integer mantissas times weights; for float64 (integers
    below 2**33) [T, 2], of the lower 16 bits and of those above.
    """
    pairs = _pairs(weights)
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


def _pairs(weights: Tensor) -> Tensor:
    """Return how often each pair counts, [T, m_pad, m_pad]; 0 unless above the diagonal."""
    return torch.triu(weights[:, :, None] * weights[:, None, :], 1)


def within(distances: Tensor, weights: Tensor, equal: Tensor, limits: Tensor) -> Tensor:
    """Count the pairs at a distance <= each of the limits, [k] or [T, k] in the distances' type: [T, k] int64."""
    pairs = _pairs(weights)
    limits = limits.expand(len(weights), -1)
    near = [(pairs * (distances <= limit[:, None, None])).sum((1, 2)) for limit in limits.unbind(1)]
    return torch.stack(near, dim=1) + equal[:, None] * (limits >= 0)


def ranked(distances: Tensor, weights: Tensor, equal: Tensor, ranks: Tensor) -> Tensor:
    """Find the distances of these ranks from 0 among all pairs, exactly: [T, k] in the distances' type.

    By bisection of the bits, which non-negative floats are in the order of. Ranks, [T, k] int64, are below the number
    of pairs; 0 where one is negative.
    """
    bits = torch.int32 if distances.dtype == torch.float32 else torch.int64
    infinity = torch.tensor(torch.inf, dtype=distances.dtype).view(bits).item()
    low, high = torch.zeros_like(ranks), torch.full_like(ranks, infinity)
    for _ in range(infinity.bit_length()):
        middle = low + (high - low) // 2
        below = within(distances, weights, equal, middle.to(bits).view(distances.dtype))
        low, high = torch.where(below > ranks, low, middle + 1), torch.where(below > ranks, middle, high)
        low = torch.minimum(low, high)
    return low.to(bits).view(distances.dtype)


def connect(distances: Tensor, weights: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return degrees and labels, [T, m_pad] int64, of the graph of rows at a distance <= limit, of distances' type.

    A row that stands for several has the others of its kind as neighbours, too. A label is the first row of a row's
    component; rows beyond the trial's have degree 0 and their own label.
    """
    near = (_pairs(weights) > 0) & (distances <= limit)
    near = near | near.mT
    degrees = (weights - 1).clamp(min=0) + (near * weights[:, None, :]).sum(2)
    rows = torch.arange(weights.shape[1], device=weights.device)
    labels = rows.expand_as(weights).contiguous()
    before = torch.full_like(labels, -1)
    while len(rows) and not torch.equal(labels, before):
        before = labels
        least = labels.minimum(torch.where(near, labels[:, None, :], len(rows)).amin(2))
        labels = least.scatter_reduce(1, labels, least, "amin")  # a label's own row takes its rows' least
        labels = labels.gather(1, labels)
    return degrees, labels
