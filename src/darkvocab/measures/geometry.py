"""Measure the L-infinity distances of all pairs of rows, the extent of each column, and the graph of touching rows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import Distances, Grid, Spread, Touching, index_values
from ..numerics.grouping import n_cores


@dataclass(eq=False)
class Geometry:
    """Distances of all unordered pairs of some rows, in weight units and in grid steps, computed when asked for."""

    index: Integer[np.ndarray, "n dim"]  # ordered; columns in which no row differs may be left out
    grid: str | Grid
    over: str = "unique"  # which rows these are: "black_holes", "unique" or "tokens"
    weights: Integer[np.ndarray, " n"] | None = None  # tokens that each row stands for, 1 by default
    threads: int = 1

    def distances(self, unit: str) -> Distances:
        return self.in_steps if unit == "steps" else self.in_weight

    @cached_property
    def in_weight(self) -> Distances:
        """Distances ``max_d |a_d - b_d|`` in float32, weight units."""
        return Distances(self.index, self.grid, unit="weight", weights=self.weights, threads=self.threads)

    @cached_property
    def in_steps(self) -> Distances:
        """Distances ``max_d |difference of ordered indices|``."""
        return Distances(self.index, self.grid, unit="steps", weights=self.weights, threads=self.threads)

    @property
    def weight(self) -> Spread:
        return self.in_weight.spread

    @property
    def steps(self) -> Spread:
        return self.in_steps.spread

    @property
    def extent_steps(self) -> Int64[np.ndarray, " dim"]:
        """Largest minus smallest ordered index of each column given; zeros without rows."""
        wide = self.index.astype(np.int64)
        return np.ptp(wide, axis=0) if len(wide) else np.zeros(wide.shape[1], np.int64)

    @property
    def extent(self) -> Float64[np.ndarray, " dim"]:
        """Largest minus smallest value of each column given, weight units; zeros without rows."""
        values = index_values(self.index, self.grid)
        return np.ptp(values, axis=0) if len(values) else np.zeros(values.shape[1])

    @property
    def n_varying_columns(self) -> int:
        """Number of columns in which not all rows are equal."""
        return self.in_weight.rows.shape[1]


class Topology:
    """Graph of rows, with an edge between any two that touch.

    A row of several tokens is that many vertices, which touch each other, too. One vertex is one isolated component of
    density 1; without vertices all numbers are 0 (seed 001's conventions).
    """

    def __init__(self, distances: Distances, touching: Touching, *, over: str = "unique") -> None:
        if distances.unit != touching.unit:
            raise InvalidInput(f"distances in {distances.unit} cannot be held against touching {touching}")
        self.touching = touching
        self.over = over
        self._distances = distances
        self._weights = distances.weights
        degrees, labels = distances.components(touching.threshold, strict=touching.strict)
        self.degrees: Int64[np.ndarray, " n"] = degrees  # of each row's vertices
        self.labels: Int64[np.ndarray, " n"] = labels  # the first row of each row's component

    @property
    def n_vertices(self) -> int:
        return int(self._weights.sum())

    @property
    def n_edges(self) -> int:
        return int(self.degrees @ self._weights) // 2

    @property
    def n_isolated(self) -> int:
        """Vertices that touch no other."""
        return int((self.degrees == 0).sum())

    @property
    def global_density(self) -> float:
        return _density(self.n_edges, self.n_vertices)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " components"]:
        """Vertices of each component, descending."""
        return np.sort(self._size_of[self._size_of > 0])[::-1]

    @property
    def n_components(self) -> int:
        return len(self.sizes)

    @property
    def largest_component_size(self) -> int:
        return int(self.sizes[0]) if self.n_components else 0

    @property
    def largest_component_density(self) -> float:
        """Density of the largest component; of equal ones, of that with the lexicographically first row of values."""
        if self.largest_component_size < 2:
            return float(self.largest_component_size)
        (largest,) = np.nonzero(self._size_of == self.largest_component_size)
        if len(largest) > 1:
            among = np.flatnonzero(np.isin(self.labels, largest))
            largest = self.labels[[_first_row(self._distances.rows, among)]]
        members = self.labels == largest
        return _density(int(self.degrees[members] @ self._weights[members]) // 2, self.largest_component_size)

    @property
    def mean_degree(self) -> float:
        return 2 * self.n_edges / self.n_vertices if self.n_vertices else 0.0

    @property
    def max_degree(self) -> int:
        return int(self.degrees.max(initial=0))

    @cached_property
    def _size_of(self) -> Int64[np.ndarray, " n"]:
        """Number of vertices of each component, at its first row; 0 at all other rows."""
        return np.bincount(self.labels, self._weights, len(self.labels)).astype(np.int64)


def _density(edges: int, vertices: int) -> float:
    return edges / (vertices * (vertices - 1) // 2) if vertices > 1 else float(vertices)


def _first_row(rows: np.ndarray, candidates: np.ndarray) -> int:
    """Return which of these rows comes first in lexicographic order."""
    for d in range(rows.shape[1]):
        if len(candidates) == 1:
            break
        column = rows[candidates, d]
        candidates = candidates[column == column.min()]
    return int(candidates[0])


def geometry(
    rows: EmbeddingMatrix | Any, grid: str | None = None, *, over: str = "unique", threads: int | None = None
) -> Geometry:
    """Measure the geometry of a matrix or of rows in memory.

    Raises as `darkvocab.census`, and InvalidInput for another word in `over`.

    Parameters
    ----------
    rows, grid : as `darkvocab.census`
    over : "black_holes" or "unique" (one row of each), or "tokens" (all; pairs of equal rows have distance 0)
    threads : to compare rows with; by default one per core. The cost grows with the square of the distinct rows.

    Examples
    --------
    >>> g = geometry(np.array([[1, 5], [1, 5], [1, 2], [9, 5]], np.float32))
    >>> g.weight.max, g.weight.mean, g.n_varying_columns
    (8.0, 6.333333333333333, 2)
    >>> geometry(np.array([[1], [1], [2]], np.float32), "bfloat16", over="tokens").steps.mean  # 0, 128 and 128 steps
    85.33333333333333
    """
    matrix = EmbeddingMatrix.of(rows, grid)
    tokens, weights = matrix.groups(grid).select(over)
    index = matrix.index(tokens, grid)
    return Geometry(index, grid or matrix.grid, over=over, weights=weights, threads=threads or n_cores())


def topology(
    rows: EmbeddingMatrix | Any,
    touching: Touching,
    grid: str | None = None,
    *,
    over: str = "unique",
    threads: int | None = None,
) -> Topology:
    """Measure the topology of a matrix or of rows in memory.

    Takes, and raises, what `geometry` does; `touching` says when two rows touch.

    Examples
    --------
    >>> t = topology(np.array([[0.0], [1.0], [2.5], [9.0]], np.float32), Touching(1.5))
    >>> t.n_components, t.n_isolated, t.largest_component_size, round(t.largest_component_density, 3)
    (2, 1, 3, 0.667)
    """
    distances = geometry(rows, grid, over=over, threads=threads).distances(touching.unit)
    return Topology(distances, touching, over=over)
