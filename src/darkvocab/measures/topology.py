"""Topology: the graph of rows that touch, its components and its density."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import Distances, Touching
from ..numerics.grouping import n_cores


class Topology:
    """The graph of rows, an edge wherever two of them touch.

    A row that stands for several tokens is that many vertices, which touch each other too. With one vertex: one
    component, isolated, densities 1; with none: zeros (seed 001's conventions).
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
        """Vertices of the component that goes by this row; 0 for rows that none goes by."""
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


def topology(
    rows: EmbeddingMatrix | Any,
    touching: Touching,
    grid: str | None = None,
    *,
    over: str = "unique",
    threads: int | None = None,
) -> Topology:
    """Measure the topology of a matrix or of rows in memory.

    Takes, and raises, what `darkvocab.measures.geometry.geometry` does; `touching` says when two rows touch.

    Examples
    --------
    >>> t = topology(np.array([[0.0], [1.0], [2.5], [9.0]], np.float32), Touching(1.5))
    >>> t.n_components, t.n_isolated, t.largest_component_size, round(t.largest_component_density, 3)
    (2, 1, 3, 0.667)
    """
    matrix = EmbeddingMatrix.of(rows, grid)
    tokens, weights = matrix.groups(grid).select(over)
    index, threads = matrix.index(tokens, grid), threads or n_cores()
    distances = Distances(index, grid or matrix.grid, unit=touching.unit, weights=weights, threads=threads)
    return Topology(distances, touching, over=over)
