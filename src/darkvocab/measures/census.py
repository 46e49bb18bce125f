"""Census: tokens that share a row, their black holes, and how many tokens stand alone."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..embedding.matrix import EmbeddingMatrix
from ..numerics.grouping import Groups, identical_rows, members_of


@dataclass(frozen=True)
class Census:
    """Partition of the tokens into groups of equal rows. A black hole has two tokens or more, a singleton one."""

    groups: Groups

    @property
    def n_tokens(self) -> int:
        return len(self.groups.labels)

    @property
    def n_unique(self) -> int:
        return len(self.groups.counts)

    @cached_property
    def _black(self) -> Int64[np.ndarray, " black_holes"]:
        """Groups of two tokens or more, the most populous first, then by first token."""
        black = np.flatnonzero(self.groups.counts >= 2)
        return black[np.lexsort((self.groups.first[black], -self.groups.counts[black]))]

    @property
    def n_black_holes(self) -> int:
        return len(self._black)

    @property
    def n_singletons(self) -> int:
        return self.n_unique - self.n_black_holes

    @property
    def black_hole_population(self) -> int:
        """Tokens in black holes."""
        return self.n_tokens - self.n_singletons

    def counts(self) -> dict[str, int]:
        """Return the four numbers of a census, by the names of records."""
        names = "n_unique", "n_black_holes", "black_hole_population", "n_singletons"
        return {name: getattr(self, name) for name in names}

    @property
    def populations(self) -> Int64[np.ndarray, " black_holes"]:
        """Tokens in each black hole, descending."""
        return self.groups.counts[self._black]

    @property
    def largest_group(self) -> int:
        """Population of the largest group: 1 if every token is a singleton, 0 without tokens."""
        return int(self.groups.counts.max(initial=0))

    @property
    def smallest_black_hole(self) -> int:
        """Population of the smallest black hole; 0 without black holes, as the next four."""
        return int(self.populations[-1]) if self.n_black_holes else 0

    @property
    def largest_black_hole(self) -> int:
        return int(self.populations[0]) if self.n_black_holes else 0

    @property
    def mean_population(self) -> float:
        return self.black_hole_population / self.n_black_holes if self.n_black_holes else 0.0

    @property
    def lower_median_population(self) -> int:
        """Median population of the black holes: the lower of the two middle ones, as ``torch.median`` takes it."""
        return int(self.populations[self.n_black_holes // 2]) if self.n_black_holes else 0

    @property
    def top2_population(self) -> int:
        """Tokens in the two largest black holes."""
        return int(self.populations[:2].sum())

    @property
    def gini(self) -> float:
        """Gini coefficient ``2 sum(i x_i) / (n sum x_i) - (n + 1) / n``, x ascending (seed 001); 0 for n < 2."""
        n = self.n_black_holes
        if n <= 1:
            return 0.0
        ascending = self.populations[::-1]
        return 2 * float(np.arange(1, n + 1) @ ascending) / (n * float(ascending.sum())) - (n + 1) / n

    def population_spectrum(self) -> tuple[Int64[np.ndarray, " sizes"], Int64[np.ndarray, " sizes"]]:
        """Return the distinct populations of groups, ascending, with 1 for singletons, and their numbers of groups."""
        sizes, groups = np.unique(self.groups.counts, return_counts=True)
        return sizes, groups.astype(np.int64)

    @property
    def representatives(self) -> Int64[np.ndarray, " black_holes"]:
        """First token of each black hole, in the order of `populations`."""
        return self.groups.first[self._black]

    @cached_property
    def numbers(self) -> Int64[np.ndarray, " n_tokens"]:
        """Number of each token's black hole, 1 for the first of `populations`; 0 outside of any."""
        numbers = np.zeros(self.n_unique, np.int64)
        numbers[self._black] = np.arange(1, self.n_black_holes + 1)
        return numbers[self.groups.labels]

    def members(self) -> list[Int64[np.ndarray, " population"]]:
        """Return the token ids of each black hole, ascending, in the order of `populations`."""
        return list(members_of(self.numbers).values())


def census(rows: EmbeddingMatrix | Any, grid: str | None = None, *, bitwise: bool = False) -> Census:
    """Count the black holes and singletons of a set of rows.

    Raises CorruptFile for NaN or infinity in a row, InvalidInput for rows that overflow `grid` or whose type is no
    grid.

    Parameters
    ----------
    rows : an `EmbeddingMatrix`, or rows in memory: a numpy array (ml_dtypes included) or torch tensor, [n_tokens, dim]
    grid : round to it first ("what would coincide on this grid?"); by default the grid the rows are stored on
    bitwise : compare bit patterns; by default -0.0 equals 0.0

    Examples
    --------
    >>> c = census(np.array([[1, 2], [1, 2], [3, 4]], np.float32))
    >>> c.n_unique, c.n_black_holes, c.black_hole_population, c.n_singletons
    (2, 1, 2, 1)
    """
    matrix = EmbeddingMatrix.of(rows, grid)
    return Census(matrix.groups(grid, bitwise=bitwise))


def counts(words: np.ndarray) -> dict[str, int]:
    """Return the census of a state's words [n, dim], and the population of its largest black hole."""
    state = Census(identical_rows(np.ascontiguousarray(words)))
    return {**state.counts(), "largest_bh": state.largest_black_hole}
