"""Find the rows of a whole vocabulary that touch, and the cluster around its black holes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import Near, Touching, as_grid, near_rows
from ..numerics.grids import regrid
from ..numerics.grouping import Groups
from ..numerics.neighbours import MAX_PAIRS


@dataclass(frozen=True, kw_only=True)
class Components:
    """Connected components of touching rows: most tokens first, then by the first row."""

    rows: Int64[np.ndarray, " components"]  # distinct ones
    tokens: Int64[np.ndarray, " components"]
    black_holes: Int64[np.ndarray, " components"]


@dataclass(frozen=True)
class Neighbours:
    """Graph of distinct rows, with an edge between any two that touch; a row stands for all its tokens."""

    groups: Groups  # the distinct rows: `first` token, `counts` of tokens, `labels` of each token
    near: Near
    touching: Touching
    max_pairs: int = MAX_PAIRS

    @property
    def n_tokens(self) -> int:
        return len(self.groups.labels)

    @property
    def n_unique(self) -> int:
        return len(self.groups.counts)

    @property
    def n_pairs(self) -> int:
        """Pairs of distinct rows that touch."""
        return self.near.n_pairs

    @property
    def n_token_pairs(self) -> int:
        """Pairs of tokens that touch, those with equal rows included."""
        return int(self.token_degrees @ self.groups.counts) // 2

    @property
    def degrees(self) -> Int64[np.ndarray, " n_unique"]:
        """Distinct rows that touch each one."""
        return self.near.degrees

    @property
    def token_degrees(self) -> Int64[np.ndarray, " n_unique"]:
        """Tokens that touch a token of each row, the others of the row included."""
        return self.near.tokens + self.groups.counts - 1

    @property
    def n_isolated(self) -> int:
        """Distinct rows that touch no other."""
        return int((self.degrees == 0).sum())

    @property
    def pairs(self) -> Int32[np.ndarray, "2 n_pairs"]:
        """Distinct rows that touch, each pair once, ascending; InvalidInput where more than `max_pairs` were found."""
        if self.near.pairs is None:
            asked = f"{self.n_pairs:,} pairs of rows touch ({self.touching}), more than the {self.max_pairs:,}"
            hint = f"degrees and components are whole, for the list ask for max_pairs={self.n_pairs}"
            raise InvalidInput(f"{asked} that were to be listed; {hint}")
        return self.near.pairs

    def adjacency(self) -> tuple[Int64[np.ndarray, " n_unique_plus_1"], Int32[np.ndarray, " both_ways"]]:
        """Starts and neighbours: those of row i, ascending, are ``neighbours[starts[i] : starts[i + 1]]`` (CSR)."""
        rows = self.pairs.ravel()
        neighbours = self.pairs[::-1].ravel()
        starts = np.concatenate([[0], np.cumsum(self.degrees)])
        return starts, neighbours[np.lexsort((neighbours, rows))]

    def degree_table(self) -> Int64[np.ndarray, "3 degrees"]:
        """Return the distinct degrees, ascending, and the numbers of distinct rows and of tokens that have each."""
        degrees, which = np.unique(self.degrees, return_inverse=True)
        return np.stack([degrees, np.bincount(which), _sums(which, self.groups.counts)])

    @cached_property
    def component(self) -> Int64[np.ndarray, " n_unique"]:
        """Index in `components` of each distinct row's component."""
        labels, which = np.unique(self.near.labels, return_inverse=True)
        order = np.lexsort((labels, -_sums(which, self.groups.counts)))
        return np.argsort(order)[which]

    @cached_property
    def components(self) -> Components:
        return Components(
            rows=np.bincount(self.component),
            tokens=_sums(self.component, self.groups.counts),
            black_holes=_sums(self.component, self.groups.counts >= 2),
        )

    @property
    def n_components(self) -> int:
        return len(self.components.rows)

    @cached_property
    def _core(self) -> Bool[np.ndarray, " n_unique"]:
        """True for rows that are a black hole or touch one, and so have more tokens than rows as neighbours."""
        return (self.groups.counts >= 2) | (self.near.tokens > self.degrees)

    @cached_property
    def _cluster(self) -> Bool[np.ndarray, " n_unique"]:
        """True for rows of the component with the most tokens among those with a black hole."""
        with_holes = np.flatnonzero(self.components.black_holes)
        return self.component == (with_holes[0] if len(with_holes) else -1)

    @property
    def cluster(self) -> Int64[np.ndarray, " tokens"]:
        """Tokens of the cluster ("frozen smoke"): of components with black holes the one with most tokens."""
        return np.flatnonzero(self._cluster[self.groups.labels])

    @property
    def core(self) -> Int64[np.ndarray, " tokens"]:
        """Tokens of the cluster that are in a black hole or touch one."""
        return np.flatnonzero((self._cluster & self._core)[self.groups.labels])

    @property
    def outliers(self) -> Int64[np.ndarray, " tokens"]:
        """Tokens of the cluster that touch no black hole."""
        return np.flatnonzero((self._cluster & ~self._core)[self.groups.labels])


def _sums(which: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    return np.bincount(which, amounts).astype(np.int64)


def neighbours(
    rows: EmbeddingMatrix | Any,
    touching: Touching | None = None,
    grid: str | None = None,
    *,
    groups: Groups | None = None,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
) -> Neighbours:
    """Find which rows of a matrix touch, without comparing all pairs. Raises as `darkvocab.census`.

    Parameters
    ----------
    rows, grid : as `darkvocab.census`; a quantised matrix is dequantised in memory, 4 bytes a number
    touching : when two rows touch, by default where no column differs by more than one grid step
    groups : `EmbeddingMatrix.groups` on that grid, where they are known already
    max_pairs : number of pairs of distinct rows up to which they are listed
    threads : to compare rows with; by default one per core

    Examples
    --------
    >>> found = neighbours(np.array([[1.0], [1.0], [1.0078125], [1.015625], [3.0]], np.float32), grid="bfloat16")
    >>> found.pairs.tolist(), found.degrees.tolist(), found.token_degrees.tolist()
    ([[0, 1], [1, 2]], [1, 2, 1, 0], [2, 3, 1, 0])
    >>> found.cluster.tolist(), found.core.tolist(), found.outliers.tolist()
    ([0, 1, 2, 3], [0, 1, 2], [3])
    """
    touching = touching or Touching(1, "steps")
    matrix = EmbeddingMatrix.of(rows, grid)
    if matrix.quantised:
        matrix = EmbeddingMatrix.of(matrix.rows(slice(None)))  # any column of any row is asked for
    target = as_grid(grid or matrix.grid)
    groups = groups or matrix.groups(grid)
    near = near_rows(
        matrix.words,
        target,
        touching,
        weights=groups.counts,
        tokens=groups.first,
        rounded=None if target == matrix.grid else lambda words: regrid(words, matrix.grid, target),
        max_pairs=max_pairs,
        threads=threads,
    )
    return Neighbours(groups, near, touching, max_pairs)
