"""Chebyshev (L-infinity) distances among a set of rows, in weight units or in grid steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

from .grids import Grid, as_grid, index_values

UNITS = ("weight", "steps")
BATCH = 1 << 20  # pairs measured before equal distances are added up
FEW_COMPARISONS = 1 << 15  # so few are made sooner than the columns are looked at
MOST_UNITS = 1 << 15  # extent of a column, in common units, that fits into 16 bits


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Distances of all unordered pairs: each distinct one, ascending, and how many pairs have it."""

    distances: Float64[np.ndarray, " distinct"]
    counts: Int64[np.ndarray, " distinct"]

    @property
    def n_pairs(self) -> int:
        return int(self.counts.sum())

    @property
    def max(self) -> float:
        """Largest distance; 0.0 when there is no pair."""
        return float(self.distances[-1]) if self.distances.size else 0.0

    @property
    def mean(self) -> float:
        """Mean over pairs; 0.0 when there is no pair."""
        return float(self.distances @ self.counts / self.n_pairs) if self.distances.size else 0.0

    @property
    def lower_median(self) -> float:
        """The lower of the two middle distances, as ``torch.median`` takes it; 0.0 when there is no pair."""
        return self._at((self.n_pairs - 1) // 2)

    @property
    def median(self) -> float:
        """The mean of the two middle distances, as ``numpy.median`` takes it; 0.0 when there is no pair."""
        return (self._at((self.n_pairs - 1) // 2) + self._at(self.n_pairs // 2)) / 2

    def _at(self, rank: int) -> float:
        if not self.distances.size:
            return 0.0
        return float(self.distances[np.searchsorted(np.cumsum(self.counts), rank, side="right")])


def chebyshev_spectrum(
    index: Integer[np.ndarray, "n dim"],
    grid: str | Grid,
    *,
    unit: str = "weight",
    weights: Integer[np.ndarray, " n"] | None = None,
) -> Spectrum:
    """Spectrum of the L-infinity distances of all pairs of rows.

    Parameters
    ----------
    index : [n, dim] ordered indices (`darkvocab.numerics.to_index`)
    grid : the grid they belong to
    unit : "weight": ``max_d |float32(a_d - b_d)|``; "steps": ``max_d |index difference|``
    weights : how many equal rows each row stands for, 1 by default; pairs of equal rows have distance 0

    Returns
    -------
    Spectrum
        Exact. Where columns take few values of very different extents (a collapsed cloud) coarse columns decide most
        pairs at once, and the cost is about n * dim; in general it is n**2 / 2 * dim.

    Examples
    --------
    >>> rows = np.array([[0, 0], [0, 1], [2, 1]])
    >>> chebyshev_spectrum(rows, "bfloat16", unit="steps")
    Spectrum(distances=array([1., 2.]), counts=array([1, 2]))
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; choose one of {', '.join(UNITS)}")
    n = len(index)
    weights = np.ones(n, np.int64) if weights is None else np.asarray(weights, np.int64)
    x = index.astype(np.float64) if unit == "steps" else index_values(index, as_grid(grid))
    distances, counts = _merged(*_unequal_pairs(x, weights))
    total = int(weights.sum())
    equal = total * (total - 1) // 2 - int(counts.sum())
    if equal:
        distances, counts = _merged(np.append(distances, 0.0), np.append(counts, equal))
    if unit == "weight":
        with np.errstate(over="ignore"):  # two finite rows may be farther apart than the largest float32: infinity
            distances, counts = _merged(distances.astype(np.float32).astype(np.float64), counts)
    return Spectrum(distances=distances, counts=counts)


def _unequal_pairs(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of unequal rows and their counts, in no order, a distance possibly more than once.

    Columns are taken by descending extent, in blocks that no later column outreaches: a pair that differs in a block,
    and in none before it, has the distance that it has within the block. So rows that agree in a block are one there.
    """
    from ._backends.pairs import peel, refine

    n, dim = x.shape
    if n * n * dim <= FEW_COMPARISONS:
        return _listed_pairs(x, np.full(n, n), weights)
    order, ends, uniform = _blocks(*_column_extents(x))
    x = x.take(order, axis=1)
    groups, sizes = np.zeros(len(x), np.int64), np.array([weights.sum()])
    counts = np.zeros(len(ends), np.int64)
    found = []
    block = 0
    while True:
        block, groups, sizes = peel(x, ends, uniform, block, groups, sizes, weights, counts)
        if block == len(ends) or len(sizes) == len(x):
            break
        columns = x[:, ends[block - 1] if block else 0 : ends[block]]
        parents = groups
        groups, first, sizes = refine(columns, parents, weights)
        family = np.argsort(parents[first], kind="stable")
        family_ends = np.searchsorted(parents[first[family]], parents[first[family]], side="right")
        found.append(_family_pairs(columns[first[family]], family_ends, sizes[family]))
        block += 1
    met = np.flatnonzero(counts)
    found.append((uniform[met], counts[met]))
    return np.concatenate([d for d, _ in found]), np.concatenate([c for _, c in found])


def _family_pairs(rows: np.ndarray, ends: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and counts of the pairs (u, v), u < v < ends[u], each counted sizes[u] * sizes[v] times.

    Where all values are few multiples of one length, distances are small integers: counted as they come. Else they are
    listed and merged, a batch at a time.
    """
    from ._backends.pairs import count_distances

    above = rows - rows.min(axis=0)
    unit = _common_unit(above)
    if above.max() / unit < MOST_UNITS:
        multiples = np.ascontiguousarray((above / unit).astype(np.int16).T)
        counts = np.zeros(int(multiples.max()) + 1, np.int64)
        count_distances(multiples, ends, sizes, counts)
        met = np.flatnonzero(counts)
        return met * unit, counts[met]
    return _listed_pairs(rows, ends, sizes)


def _listed_pairs(rows: np.ndarray, ends: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_family_pairs`, every distance listed; rows that are equal count with distance 0."""
    from ._backends.pairs import pair_distances

    found = [(np.empty(0), np.empty(0, np.int64))]
    n_pairs = int((ends - np.arange(1, len(rows) + 1)).sum())
    u, v = 0, 1
    while n_pairs:
        distances, counts = np.empty(min(n_pairs, BATCH)), np.empty(min(n_pairs, BATCH), np.int64)
        u, v, done = pair_distances(rows, ends, sizes, u, v, distances, counts)
        found.append(_merged(distances, counts))
        n_pairs -= done
    return np.concatenate([d for d, _ in found]), np.concatenate([c for _, c in found])


def _common_unit(x: np.ndarray) -> float:
    """Largest power of two of which all these numbers are multiples."""
    significand, exponent = np.frexp(x[x != 0])
    integers = (significand * 2.0**53).astype(np.int64)
    lowest_bit = np.log2((integers & -integers).astype(np.float64))
    return float(np.ldexp(1.0, int((lowest_bit + exponent).min()) - 53))


def _merged(distances: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct distances, ascending, with the sums of their counts."""
    order = np.argsort(distances)
    distances, counts = distances[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], distances[1:] != distances[:-1]])[: len(distances)])
    return distances[starts], np.add.reduceat(counts, starts) if starts.size else counts


def _column_extents(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest non-zero distance between two values of each column; 0 and infinity where it is constant."""
    from ._backends.pairs import column_extents

    extent, gap = np.zeros(x.shape[1]), np.full(x.shape[1], np.inf)
    if len(x):
        column_extents(x, extent, gap)
    for d in np.flatnonzero(gap < 0):
        values = np.unique(x[:, d])
        extent[d], gap[d] = values[-1] - values[0], np.diff(values).min()
    return extent, gap


def _blocks(extent: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the columns that vary, by descending extent, where no later one extends farther than the smallest gap so far.

    Returns the order of the columns, the end of each block, and the one distance that rows unequal in it have (0 where
    there are several).
    """
    from ._backends.pairs import cut_blocks

    order = np.argsort(-extent, kind="stable")[: np.count_nonzero(extent)]
    ends, uniform = np.empty(len(order), np.int64), np.empty(len(order))
    n_blocks = cut_blocks(extent[order], gap[order], ends, uniform)
    return order, ends[:n_blocks], uniform[:n_blocks]
