"""Cells: the grid values that each component of a base vector can take under noise, and with what probability.

A component is rounded to the grid after the noise is added, so what can be seen of it is which *cell* (grid value) it
landed in. Components are independent and the rounding is monotone in the noise: thresholds for each column say it all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from ..errors import InvalidInput
from .grids import Grid, as_grid

ARITHMETICS = ("float32", "exact")
MOST_CELLS = 128  # of a column whose thresholds are listed: offsets from home fit into a signed byte
NEGLECTED = 1e-9  # per snowball: the chance that noise beyond `reach` occurs at all

_SQRT2 = math.sqrt(2.0)


def _beyond(z: float, distribution: str) -> float:
    """P(|Z| > z) of the distribution of standard deviation 1."""
    return math.exp(-z * _SQRT2) if distribution == "laplace" else math.erfc(z / _SQRT2)


@lru_cache(maxsize=64)
def reach(n_components: int, distribution: str = "gaussian") -> tuple[float, float]:
    """How far noise is followed, in standard deviations, and the chance that any of n deviates goes farther.

    Union bound: ``n * P(|Z| > reach) <= 1e-9``, in steps of 1/16 of a standard deviation.

    Examples
    --------
    >>> r, neglected = reach(2100 * 2560)
    >>> r, neglected < 1e-9
    (8.25, True)
    """
    z = 6.0
    while n_components * _beyond(z, distribution) > NEGLECTED:
        z += 1 / 16
    return z, n_components * _beyond(z, distribution)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of every column that noise can move; other columns keep their `home`.

    A component in active column j lies in cell ``low[j] + #{t : u >= thresholds[starts[j] + t]}`` for a uniform 64-bit
    word u, so cell ``low[j] + c`` has probability ``(thresholds[.. + c] - thresholds[.. + c - 1]) / 2**64``.
    """

    grid: Grid
    home: Int64[np.ndarray, " dim"]  # ordered index of every component without noise
    columns: Int64[np.ndarray, " active"]  # with 2 to 128 cells
    wide: Int64[np.ndarray, " wide"]  # columns with more, for which no thresholds are listed
    low: Int64[np.ndarray, " active"]  # ordered index of the lowest cell within reach
    starts: Int64[np.ndarray, " active_plus_one"]
    thresholds: UInt64[np.ndarray, " edges"]
    neglected: float  # bound on the chance that a snowball of this size would leave the cells listed

    @property
    def are_few(self) -> bool:
        """Whether it pays to draw cells: of at most an eighth of the columns they are too many to be listed."""
        return len(self.wide) <= self.home.size / 8

    def probabilities(self, j: int) -> Float64[np.ndarray, " cells"]:
        """Probability of each cell of active column `j`, from ``low[j]`` upwards; they sum to 1."""
        edges = self.thresholds[self.starts[j] : self.starts[j + 1]]
        padded = np.concatenate([np.zeros(1, np.uint64), edges, np.zeros(1, np.uint64)])
        return np.diff(padded) / 2.0**64  # unsigned differences wrap at 2**64, as the last cell needs


def cell_ranges(
    base: np.ndarray, sigma: float, reach: float, grid: str | Grid, arithmetic: str = "float32"
) -> tuple[Int64[np.ndarray, " dim"], Int64[np.ndarray, " dim"], Int64[np.ndarray, " dim"]]:
    """Ordered index of every component without noise, and the lowest and highest that noise within `reach` gives it.

    Parameters
    ----------
    base : [dim], weight units
    sigma : standard deviation of the noise, weight units, before rounding
    reach : how far noise is followed, in standard deviations

    Raises
    ------
    InvalidInput
        Noise within reach overflows the grid.
    """
    from ._backends.drawing import cell_ranges as kernel

    grid = as_grid(grid)
    home, low, high = (np.empty(base.size, np.int64) for _ in range(3))
    shape = grid.constants
    base = base.astype(np.float32) if arithmetic == "float32" else base
    if kernel(base.astype(np.float64), reach, sigma, arithmetic == "float32", *shape, home, low, high):
        raise InvalidInput(
            f"sigma {sigma:g} overflows {grid.name}: base + {reach:.1f} sigma reaches beyond its largest value "
            f"{grid.max_value:g}; choose a smaller sigma or a wider grid"
        )
    return home, low, high


def cells(
    base: np.ndarray,
    sigma: float,
    n_tokens: int,
    grid: str | Grid = "bfloat16",
    arithmetic: str = "float32",
    distribution: str = "gaussian",
) -> Cells:
    """Cells of every component under independent Gaussian or Laplace noise, with their thresholds.

    `arithmetic` "float32" follows the chain ``round(f32(base + f32(f32(z) * f32(sigma))))`` with its double rounding,
    "exact" rounds the real sum once. The thresholds are exact for the chain; the law's only errors are the neglected
    tail and 2**-64 per threshold.

    Raises
    ------
    InvalidInput
        As `cell_ranges`.
    """
    from ._backends.drawing import cdf_words, cell_thresholds

    grid = as_grid(grid)
    z, neglected = reach(n_tokens * base.size, distribution)
    home, low, high = cell_ranges(base, sigma, z, grid, arithmetic)
    spread = high - low
    columns, wide = np.flatnonzero((spread > 0) & (spread < MOST_CELLS)), np.flatnonzero(spread >= MOST_CELLS)
    low, high = low[columns], high[columns]
    starts = np.concatenate([[0], np.cumsum(high - low)])
    deviates = np.empty(starts[-1])
    active = base[columns].astype(np.float64)
    cell_thresholds(active, low, high, sigma, arithmetic == "float32", grid.mantissa_bits, grid.min_exponent, deviates)
    words = np.empty(deviates.size, np.uint64)
    cdf_words(deviates, distribution == "laplace", words)
    return Cells(
        grid=grid, home=home, columns=columns, wide=wide, low=low, starts=starts, thresholds=words, neglected=neglected
    )
