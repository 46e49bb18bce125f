"""Geometry: L-infinity distances of all pairs of rows, and the extent of each column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer

from ..embedding.matrix import EmbeddingMatrix
from ..numerics import Distances, Grid, Spread, index_values
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
        """``max_d |a_d - b_d|`` in float32, weight units."""
        return Distances(self.index, self.grid, unit="weight", weights=self.weights, threads=self.threads)

    @cached_property
    def in_steps(self) -> Distances:
        """``max_d |difference of ordered indices|``."""
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
        """Columns in which not all rows are equal; the others are constant."""
        return self.in_weight.rows.shape[1]


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
