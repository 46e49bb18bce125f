"""Chebyshev (L-infinity) distances of all pairs of a set of rows, in weight units or in grid steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, UInt

from ..errors import one_of
from . import _backends
from .grids import Grid, as_grid, index_values

Graph = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]  # degree of each row, first row of its component

UNITS = ("weight", "steps")
BLOCK_PAIRS = 1 << 23  # pairs whose distances are computed at a time
KEPT_PAIRS = 1 << 26  # up to which distances are kept for a second pass; beyond, they are computed again
SORTED_ROWS = 512  # up to which distances are listed and sorted rather than tallied
FEW_ENTRIES = 1 << 24  # of all pairs of rows, below which choosing windows costs more than it saves
WINDOW_SAMPLE = 96  # rows from whose distances the widths of windows are chosen
SAMPLED_COLUMNS = 256  # about so many decide between widths
WIDTH_QUANTILES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of sampled distances: widths that are tried
STREAMING = 1.0  # cost of an entry that is listed and streamed, in entries of a walk over all
SETTLING = 4.0  # cost of an entry of a pair that is compared in full
INFINITE = 255  # exponent of float32
OPTIMISM = 1.6  # so many more entries lie outside windows than of the rows that the windows were fitted to


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Summary of the distances of all pairs; zeros where there is no pair."""

    n_pairs: int = 0
    max: float = 0.0
    mean: float = 0.0  # of the exact sum, rounded once: no order of the pairs changes it
    lower_median: float = 0.0  # the lower of the two middle distances, as ``torch.median`` takes it
    median: float = 0.0  # the mean of the two, as ``numpy.median`` takes it

    @classmethod
    def of(cls, n_pairs: int, largest: float, total: float, lower: float, upper: float) -> Spread:
        """Summarise distances by the largest, the sum of all, and the two in the middle."""
        return cls(n_pairs=n_pairs, max=largest, mean=total / n_pairs, lower_median=lower, median=(lower + upper) / 2)


class Distances:
    """L-infinity distances of all unordered pairs of rows; exact, a block of rows at a time.

    In weight units a distance is ``max_d |float32(a_d - b_d)|``, in steps ``max_d |difference of ordered indices|``.

    Of each column a window no wider than w is chosen. Two rows that are at least w apart are so in a column in which
    one of them lies outside its window: only those entries are visited, and the pairs that come out nearer than w are
    compared in full. Any windows give the same, exact, distances; sampled rows decide which make the least work (for
    Gaussian rows 4% of the entries). Where every entry would be visited, all columns of all pairs are, once.
    """

    def __init__(
        self,
        index: Integer[np.ndarray, "n dim"],
        grid: str | Grid,
        *,
        unit: str = "weight",
        weights: Integer[np.ndarray, " n"] | None = None,
        threads: int = 1,
    ) -> None:
        """Take ordered indices (`to_index`) on a grid; `weights` says how many equal rows each stands for, else 1."""
        one_of(unit, "unit", UNITS)
        self.unit = unit
        self.threads = threads
        self.n = len(index)
        self.weights = np.ones(self.n, np.int64) if weights is None else np.asarray(weights, np.int64)
        self.rows, self._packed = _differing(index, as_grid(grid), unit)

    @cached_property
    def n_pairs(self) -> int:
        total = int(self.weights.sum())
        return total * (total - 1) // 2

    @cached_property
    def n_equal(self) -> int:
        """Pairs within the rows that one row stands for."""
        return int((self.weights * (self.weights - 1) // 2).sum())

    def blocks(self) -> Iterator[tuple[int, Float[np.ndarray, "rows later"]]]:
        """Blocks (first, d): ``d[i, j]`` is the distance of rows first + i and first + j, for every j > i only."""
        if "_kept" not in self.__dict__ and self.n * self.n // 2 <= KEPT_PAIRS:
            self._kept = list(self._computed())
        return iter(self._kept) if "_kept" in self.__dict__ else self._computed()

    def _computed(self) -> Iterator[tuple[int, np.ndarray]]:
        if self.n < 2:
            return
        walk = _Walk(self.rows, packed=self._packed)
        size = max(1, BLOCK_PAIRS // self.n // walk.lanes) * walk.lanes
        starts = range(0, self.n - 1, size)
        if self.threads == 1 or len(starts) == 1:
            yield from ((first, walk.block(first, size)) for first in starts)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            for group in range(0, len(starts), self.threads):  # no more in memory than threads
                some = starts[group : group + self.threads]
                yield from zip(some, pool.map(walk.block, some, [size] * len(some)), strict=True)

    @cached_property
    def spread(self) -> Spread:
        """Largest, mean and median distance."""
        if not self.n_pairs:
            return Spread()
        if self.n <= SORTED_ROWS:  # sorting a list costs less than new histograms
            few = self._spread_of_few()
            if few is not None:
                return few
        is_float32 = self.rows.dtype == np.float32
        bins = np.zeros((1 << 15 if is_float32 else 1 << 18, 2), np.int64)
        bins[0, 0] = self.n_equal
        largest = 0
        for first, block in self.blocks():
            largest = max(largest, int(_backends.distances.tally(_keys(block), first, self.weights, bins)))
        lows: dict[int, np.ndarray] = {}
        lower, upper = (self._ranked(rank, bins[:, 0], lows) for rank in ((self.n_pairs - 1) // 2, self.n_pairs // 2))
        return Spread.of(self.n_pairs, _distance_of(largest, self.rows.dtype), _total(bins, is_float32), lower, upper)

    def _spread_of_few(self) -> Spread | None:
        """Summarise a sorted list of the distances; None where float64 would round their sum."""
        ranks = [(self.n_pairs - 1) // 2, self.n_pairs // 2]
        if self.n_equal:
            distances, counts = self.spectrum()
            middle = distances[np.searchsorted(np.cumsum(counts), ranks, side="right")]
            total = float(distances @ counts)
        else:
            parts = [self._listed(first, block) for first, block in self.blocks()]
            distances = parts[0] if len(parts) == 1 else np.concatenate(parts)
            distances.sort()
            middle = distances[ranks]
            total = float(distances.sum(dtype=np.float64))
        largest = float(distances[-1])
        least = float(distances[-np.count_nonzero(distances)])  # the smallest above 0; 0 if all are 0
        whole = self.unit == "steps" and self.n_pairs * largest < 2.0**53
        exact = whole or is_exact(self.n_pairs, largest, least)
        return Spread.of(self.n_pairs, largest, total, *middle.tolist()) if exact else None

    def _listed(self, first: int, block: np.ndarray) -> np.ndarray:
        """Distances of a block, row after row."""
        later = self.n - first
        out = np.empty(len(block) * later - len(block) * (len(block) + 1) // 2, block.dtype)
        _backends.distances.list_pairs(block, later, out)
        return out

    def _ranked(self, rank: int, high: np.ndarray, lows: dict[int, np.ndarray]) -> float:
        """Find the distance of a rank from 0; high counts pairs by their keys' upper bits, lows[h] by the lower."""
        upper, rank = _bin_of(rank, high)
        if upper not in lows:
            lows[upper] = np.zeros(1 << 16, np.int64)
            lows[upper][0] = 0 if upper else self.n_equal
            for first, block in self.blocks():
                _backends.distances.tally_within(_keys(block), first, self.weights, upper, lows[upper])
        lower, _ = _bin_of(rank, lows[upper])
        return _distance_of((upper << 16) + lower, self.rows.dtype)

    def within(self, threshold: float | int, *, strict: bool = False) -> int:
        """Pairs at a distance <= threshold (`strict`: < threshold)."""
        limit = largest_within(threshold, self.rows.dtype, strict=strict)
        count = self.n_equal if limit >= 0 else 0
        near = _backends.distances.count_near
        return count + sum(near(block, first, self.weights, limit) for first, block in self.blocks())

    def components(self, threshold: float | int, *, strict: bool = False) -> Graph:
        """Degrees of the rows in the graph of pairs within the threshold, and the first row of each row's component.

        A row that stands for k rows counts as k neighbours of its neighbours, and has k - 1 neighbours in itself.
        """
        limit = largest_within(threshold, self.rows.dtype, strict=strict)
        degrees = self.weights - 1
        labels = np.arange(self.n)
        for first, block in self.blocks():
            _backends.distances.connect(block, first, self.weights, limit, degrees, labels)
        _backends.grouping.flatten(labels)
        return degrees, labels

    def spectrum(self) -> tuple[Float64[np.ndarray, " distinct"], Int64[np.ndarray, " distinct"]]:
        """Return every distance that occurs, ascending, and how many pairs have it."""
        distances = np.zeros(1)
        counts = np.array([self.n_equal])
        for first, block in self.blocks():
            rows = self.weights[first : first + len(block)]
            weights = self._listed(first, np.multiply.outer(rows, self.weights[first:]))
            distances, place = np.unique(np.append(distances, self._listed(first, block)), return_inverse=True)
            counts = np.bincount(place, np.append(counts, weights)).astype(np.int64)
        return distances[counts > 0], counts[counts > 0]


class KnownDistances(Distances):
    """Statistics of the distances of some rows that were computed elsewhere, in place of the distances.

    The caller sets `spread`, the number of pairs `near` by threshold and strictness, and the one `graph`.
    """

    def __init__(self, unit: str, weights: Int64[np.ndarray, " n"], rows: Callable[[], np.ndarray]) -> None:
        """Take a function that returns the rows' ordered indices; it is called only if they are needed."""
        self.unit = unit
        self.weights = weights
        self.n = len(weights)
        self._rows = rows
        self.near: dict[tuple[float, bool], int] = {}
        self.graph: Graph | None = None

    @cached_property
    def rows(self) -> np.ndarray:  # type: ignore[override]
        return self._rows()

    def within(self, threshold: float | int, *, strict: bool = False) -> int:
        return self.near[threshold, strict]

    def components(self, threshold: float | int, *, strict: bool = False) -> Graph:
        assert self.graph is not None
        return self.graph


def largest_within(threshold: float | int, dtype: np.dtype, *, strict: bool) -> np.floating:
    """Return the largest distance of this type within the threshold, itself rounded to it; below 0 if there is none."""
    with np.errstate(over="ignore"):
        limit = dtype.type(threshold)
    return np.nextafter(limit, dtype.type(-np.inf)) if strict else limit


def _differing(index: np.ndarray, grid: Grid, unit: str) -> tuple[np.ndarray, bool]:
    """Return the columns in which rows differ, in a dtype where differences are exact; and whether bfloat16 holds it.

    Steps are counted from the column's smallest index, and in the narrowest type in which they are right.
    """
    if not len(index):
        return np.empty((0, 0), np.float32), False
    low, high = index.min(axis=0), index.max(axis=0)
    varying = np.flatnonzero(low != high)
    index = index if len(varying) == index.shape[1] else index.take(varying, axis=1)
    if unit == "weight":
        return index_values(np.ascontiguousarray(index), grid, np.float32), grid.mantissa_bits <= 7
    low, high = (ends[varying].astype(np.int64) for ends in (low, high))
    extent = int((high - low).max(initial=0))
    rows = np.subtract(index, low, dtype=np.float32 if grid.bits <= 16 else np.float64)
    return rows.astype(np.float32 if extent <= 1 << 24 else np.float64, copy=False), extent <= 1 << 8


def _keys(distances: np.ndarray) -> UInt[np.ndarray, "rows later"]:
    """Unsigned integers in the order of these distances: float32's bits, or (steps beyond them) the number itself."""
    return distances.view(np.uint32) if distances.dtype == np.float32 else distances.astype(np.uint64)


def _bin_of(rank: int, counts: np.ndarray) -> tuple[int, int]:
    """Return the bin in which the item of this rank from 0 lies, and its rank there."""
    ends = np.cumsum(counts)
    place = int(np.searchsorted(ends, rank, side="right"))
    return place, rank - int(ends[place] - counts[place])


def _total(bins: Int64[np.ndarray, "bins 2"], is_float32: bool) -> float:
    """Return the sum, rounded once, of the distances whose keys were tallied: their bits, or the whole numbers."""
    sums: dict[int, int] = {}
    for place in np.flatnonzero(bins[:, 0]).tolist():
        count, lower = bins[place].tolist()
        exponent = place >> 7 if is_float32 else 0
        upper = (place & 0x7F) + (0x80 if exponent else 0) if is_float32 else place
        sums[exponent] = sums.get(exponent, 0) + count * (upper << 16) + lower
    return exact_total(sums) if is_float32 else float(sums[0])


def exact_total(sums: dict[int, int]) -> float:
    """Return the sum of float32 numbers >= 0, rounded once, from the integer sum of the significands of each exponent.

    `sums` goes by the exponent's 8 bits; a significand has 24 bits, of a subnormal number fewer.

    Examples
    --------
    >>> exact_total({127: 3 << 23})  # thrice the significand of 1.0
    3.0
    """
    if sums.get(INFINITE):
        return math.inf
    return sum(total << max(exponent, 1) for exponent, total in sums.items()) / 2**150


def is_exact(n: int, largest: float, smallest: float) -> bool:
    """Return whether float64 adds n float32 numbers without rounding, in any order: zeros, or between these two.

    All are multiples of the last place of the smallest, and no partial sum has more than 53 bits of it.
    """
    if not (math.isfinite(largest) and n):
        return True
    last_place = math.ldexp(1.0, max(math.frexp(smallest)[1] - 24, -149)) if smallest else 2.0**-149
    return n * largest <= 2.0**53 * last_place


def _distance_of(key: int, dtype: np.dtype) -> float:
    return float(np.uint32(key).view(np.float32)) if dtype == np.float32 else float(key)


class _Walk:
    """Rows, their tiles, and which of their entries are visited: those outside windows of this width, or all (0)."""

    def __init__(self, rows: np.ndarray, *, packed: bool = False) -> None:
        self.rows = rows
        self.lanes = _backends.distances.TILE_BYTES // (2 if packed else rows.itemsize)
        tiles = -(-len(rows) // self.lanes), rows.shape[1]
        if packed:
            pairs = np.empty((*tiles, self.lanes // 2), np.uint32)
            _backends.distances.fill_packed(rows, pairs)
            self.tiles = pairs.view(np.uint16)
        else:
            self.tiles = np.empty((*tiles, self.lanes), rows.dtype)
            _backends.distances.fill_tiles(rows, self.tiles)
        self.width, low, high, expected = _windows(rows)
        if self.width > 0:
            self._list(low, high, expected)

    def _list(self, low: np.ndarray, high: np.ndarray, expected: int) -> None:
        self.starts = np.empty(2 * len(self.rows) + 1, np.int64)
        needed = expected + 1
        while needed > expected:
            expected = max(expected, needed)
            self.columns = np.empty(expected, np.int32)
            self.values = np.empty(expected, self.rows.dtype)
            needed = _backends.distances.list_outside(self.rows, low, high, self.starts, self.columns, self.values)

    def block(self, first: int, size: int) -> np.ndarray:
        """Distances of `size` rows from `first` on to all rows from there, above the diagonal; first at a tile's."""
        rows = self.rows[first:]
        tiles = self.tiles[first // self.lanes :]
        out = np.zeros((min(size, len(rows)), len(tiles) * self.lanes), rows.dtype)
        if self.width == 0:
            _backends.distances.stream_all(tiles, self.lanes, rows, np.arange(rows.shape[1], dtype=np.int32), out)
        else:
            lists = self.starts[2 * first :], self.columns, self.values
            _backends.distances.stream(tiles, self.lanes, rows, *lists, self.width, out)
        return out


def _windows(rows: np.ndarray) -> tuple[float | np.floating, np.ndarray, np.ndarray, int]:
    """Width of the windows and their ends that make the least work, and how many entries may lie outside.

    Judged from sampled rows; width 0 where no windows save work.
    """
    n, dim = rows.shape
    best = 0.5 * n * n * dim  # the work of visiting everything
    if n <= WINDOW_SAMPLE or best < FEW_ENTRIES:
        return 0.0, np.empty(0), np.empty(0), 0
    width, room = 0.0, 0
    low, high = np.empty((2, dim), rows.dtype)
    sample = np.ascontiguousarray(rows[np.linspace(0, n - 1, WINDOW_SAMPLE).astype(np.int64)])
    apart = np.sort(_Walk(sample).block(0, WINDOW_SAMPLE)[np.triu_indices(WINDOW_SAMPLE, 1)])
    ordered = np.sort(sample.T.copy(), axis=1)
    some = np.ascontiguousarray(ordered[:: max(1, dim // SAMPLED_COLUMNS)])
    for distance in np.unique(np.quantile(apart, WIDTH_QUANTILES, method="lower")):
        candidate = np.nextafter(distance, distance.dtype.type(0))
        if not 0 < candidate < np.inf:
            continue
        ends = low[: len(some)], high[: len(some)]
        outside = OPTIMISM * _backends.distances.fit_windows(some, candidate, *ends) / WINDOW_SAMPLE * dim / len(some)
        nearer = np.searchsorted(apart, candidate) / len(apart)
        work = STREAMING * n * n * outside + SETTLING * nearer * 0.5 * n * n * dim
        if work < best:
            best, width, room = work, candidate, int(1.2 * n * outside)
    if width > 0:
        _backends.distances.fit_windows(ordered, width, low, high)
    return width, low, high, room
