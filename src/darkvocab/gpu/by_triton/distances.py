"""L-infinity distances of all pairs of rows of T trials, in Triton: the functions of `by_torch.distances`."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..by_torch.distances import COLUMNS, TILE
from . import distance_kernels as kernels

LAUNCH = {"enable_fp_fusion": False}
SHARE = 16  # how many times smaller a pass makes the range of a rank, by as many limits
ROWS = 32  # of a tile of distances, of most kernels that read them


class Shape(NamedTuple):
    """Work of one program of `all_pairs`: warps * 32 threads have row_words x later_words words of 64 bits each.

    A word is two float32 of neighbouring rows, or one float64. `across` threads lie side by side along later rows. Its
    rows, and its later rows, are at most TILE.
    """

    row_words: int
    later_words: int
    across: int
    warps: int
    unroll: int  # columns, a divisor of COLUMNS

    @property
    def rows(self) -> int:
        """Words of rows of one program."""
        return self.row_words * (self.warps * 32 // self.across)

    @property
    def later(self) -> int:
        return self.later_words * self.across


SHAPES = {torch.float32: Shape(4, 4, 8, 2, 4), torch.float64: Shape(4, 4, 8, 2, 2)}


def values(codes: Tensor, home: Tensor, rows: Tensor, unit: str, shape: tuple[int, int, int]) -> Tensor:
    (trials, n, dim), m = codes.shape, rows.shape[1]
    steps = unit == "steps"
    dtype = torch.float64 if steps and shape[2] >= 1 << 15 else torch.float32
    columns = dim + -dim % COLUMNS
    x = torch.empty(trials, triton.cdiv(m, TILE), columns, TILE, dtype=dtype, device=codes.device)
    if x.numel():
        grid = triton.cdiv(columns, kernels.WIDE.value), x.shape[1], trials
        arguments = codes.contiguous(), home.contiguous(), rows.contiguous(), x, n, m, dim, columns
        kernels.fill_values[grid](*arguments, shape, steps, num_warps=8, **LAUNCH)
    return x


def all_pairs(x: Tensor, counts: Tensor, shape: Shape | None = None) -> Tensor:
    """Compare as `by_torch.distances.all_pairs`, by programs of a `shape` for the type of x."""
    trials, tiles, columns, _ = x.shape
    shape = shape or SHAPES[x.dtype]
    m_pad = tiles * TILE
    pair = 2 if x.dtype == torch.float32 else 1
    out = torch.empty(trials, m_pad, m_pad, dtype=x.dtype, device=x.device)
    if out.numel():
        words = torch.int64 if pair == 2 else torch.float64
        grid = m_pad // (pair * shape.rows) * (m_pad // (pair * shape.later)), trials
        arrays = x.contiguous().view(words), counts.contiguous(), out.view(words)
        threads = shape.warps * 32 // shape.across, shape.across
        work = TILE // pair, shape.row_words, shape.later_words, *threads, shape.unroll, pair == 2
        kernels.compare_pairs[grid](*arrays, tiles, columns, *work, num_warps=shape.warps, **LAUNCH)
    return out


def tally(distances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    bits, parts = (torch.int32, 256) if distances.dtype == torch.float32 else (torch.int64, 2)
    largest = torch.zeros(len(weights), dtype=bits, device=weights.device)
    sums = weights.new_zeros(len(weights), parts)
    _over_tiles(kernels.tally_tile, distances, weights, largest, sums, warps=8)
    return largest.view(distances.dtype), sums


def _over_tiles(kernel, distances, weights, *others, height=ROWS, warps=4, **constants) -> None:
    trials, m_pad, _ = distances.shape
    distances, weights = distances.contiguous(), weights.contiguous()
    if distances.numel():
        settings = {**constants, "height": height, "num_warps": warps, **LAUNCH}
        kernel[m_pad // height * (m_pad // kernels.LATER.value), trials](distances, weights, *others, m_pad, **settings)


def _count(distances, weights, limits, live, counts, groups) -> None:
    n_limits = limits.shape[-1]
    _over_tiles(
        kernels.count_near, distances, weights, limits, live, counts, groups, n_limits=n_limits, height=2 * ROWS
    )


def within(distances: Tensor, weights: Tensor, equal: Tensor, limits: Tensor) -> Tensor:
    n_limits = limits.shape[-1]
    room = triton.next_power_of_2(max(n_limits, 1)) - n_limits
    limits = torch.nn.functional.pad(limits.expand(len(weights), -1), (0, room), value=-1.0).contiguous()
    counts = equal[:, None] * (limits >= 0)
    live = torch.ones(len(weights), dtype=torch.int32, device=weights.device)
    _count(distances, weights, limits, live, counts, 1)
    return counts[:, :n_limits]


def ranked(distances: Tensor, weights: Tensor, equal: Tensor, ranks: Tensor) -> Tensor:
    float_type = distances.dtype
    bits, infinity = (torch.int32, 0x7F8 << 20) if float_type == torch.float32 else (torch.int64, 0x7FF << 52)
    low, high = torch.zeros_like(ranks), torch.full_like(ranks, infinity)
    place = torch.arange(ranks.shape[1], device=ranks.device)
    share = torch.arange(1, SHARE + 1, device=ranks.device)
    for _ in range(triton.cdiv(infinity.bit_length(), SHARE.bit_length() - 1)):
        width = (high - low)[:, :, None]
        pivots = low[:, :, None] + width // SHARE * share + width % SHARE * share // SHARE  # without overflow
        # Ranks with one range are counted for once, and none that is settled.
        same = (low[:, :, None] == low[:, None]) & (high[:, :, None] == high[:, None])
        first = same.long().argmax(2)
        live = (first == place) & (low < high)
        counts = torch.zeros_like(pivots)
        _count(distances, weights, pivots.to(bits).view(float_type), live.int(), counts, ranks.shape[1])
        counts = counts.gather(1, first[:, :, None].expand_as(counts)) + equal[:, None, None]
        reached = counts > ranks[:, :, None]
        above = torch.where(reached, low[:, :, None], pivots + 1).amax(2).minimum(high)
        high = torch.where(reached, pivots, high[:, :, None]).amin(2)
        low = above
    return low.to(bits).view(float_type)


def connect(distances: Tensor, weights: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    degrees = (weights - 1).clamp(min=0).contiguous()
    rows = torch.arange(weights.shape[1], dtype=torch.int32, device=weights.device)
    parents = rows.expand_as(weights).contiguous()
    bound = torch.full((1,), limit, dtype=distances.dtype, device=distances.device)
    _over_tiles(kernels.add_degrees, distances, weights, bound, degrees, parents)
    parents = _flat(parents)
    _over_tiles(kernels.unite, distances, weights, bound, parents)
    return degrees, _flat(parents).to(torch.int64)


def _flat(parents: Tensor) -> Tensor:
    """Return every row's root as its parent: each step doubles how far up a row looks."""
    for _ in range(parents.shape[1].bit_length()):
        parents = parents.gather(1, parents.to(torch.int64))
    return parents
