"""Cells: the grid values that each component of a base vector can take under noise, and with what probability.

A component is rounded to the grid after the noise is added, so only the *cell* (grid value) in which
it lands can be seen. Components are independent and rounding is monotone in the noise: the deviates
at which it moves from one cell to the next determine all probabilities.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from scipy.special import ndtr

from ..errors import InvalidInput, one_of
from . import _backends
from .grids import Grid

NEGLECTED = 1e-9  # per snowball: the chance that noise beyond `reach` occurs at all
FARTHEST = 2.0**19  # standard deviations that noise can reach

Function = Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Distribution:
    """Distribution of the noise of one component over sigma, by its distribution function.

    `cdf` and `sf` (its complement) are vectorised; only where `sf` is given are probabilities in
    the upper tail exact to more than 1e-16. Standard deviation 1 where sigma is to be the standard
    deviation of a component. Without `cdf`, components depend on one another.
    """

    name: str
    cdf: Function | None = field(default=None, repr=False)
    sf: Function | None = field(default=None, repr=False)
    beyond: Callable[[float], float] | None = field(default=None, repr=False)  # P(|Z| > z); else from cdf and sf
    number: int | None = field(default=None, repr=False)  # by which the kernels draw it; None: they cannot

    def below(self, z: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """P(Z <= z)."""
        assert self.cdf is not None, f"{self.name} is not independent"
        return self.cdf(z)

    def above(self, z: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """P(Z > z)."""
        return self.sf(z) if self.sf else 1 - self.below(z)

    def tails(self, z: float) -> float:
        """P(|Z| > z)."""
        if self.beyond:
            return self.beyond(z)
        at = np.array([z])
        return float((self.above(at) + self.below(-at))[0])

    def reach(self, n_components: float) -> float:
        """Distance, in standard deviations, that any of n deviates exceeds with probability 1e-9 at most.

        Union bound; the least such multiple of 1/16. InvalidInput where it lies beyond 2**19.

        Examples
        --------
        >>> DISTRIBUTIONS["gaussian"].reach(2100 * 2560)
        8.25
        """
        return _reach(self, float(n_components))


@lru_cache(maxsize=256)
def _reach(distribution: Distribution, n_components: float) -> float:
    def is_beyond(sixteenths: int) -> bool:
        return n_components * distribution.tails(sixteenths / 16) <= NEGLECTED

    enough = 16
    while enough < 16 * FARTHEST and not is_beyond(enough):  # no farther: a function may return NaN there
        enough *= 2
    reach = bisect_left(range(enough + 1), True, key=is_beyond)
    if reach > enough:
        raise InvalidInput(
            f"the tails of {distribution.name} are too heavy: of {n_components:.3g} components some reach beyond "
            f"{FARTHEST:g} sigma with a probability above {NEGLECTED:g}"
        )
    return reach / 16


def _laplace(z: np.ndarray) -> np.ndarray:
    tail = 0.5 * np.exp(-np.abs(z) * math.sqrt(2.0))
    return np.where(z < 0, tail, 1 - tail)


def _uniform(z: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + z / math.sqrt(12.0), 0, 1)


def _beyond_gaussian(z: float) -> float:
    return math.erfc(z / math.sqrt(2.0))


DISTRIBUTIONS = {
    distribution.name: distribution
    for distribution in (
        Distribution("gaussian", ndtr, lambda z: ndtr(-z), _beyond_gaussian, number=0),
        Distribution("laplace", _laplace, lambda z: _laplace(-z), lambda z: math.exp(-z * math.sqrt(2.0)), number=1),
        Distribution("uniform", _uniform, lambda z: _uniform(-z)),
        # A component of these tends to Gaussian as the dimension grows, with lighter tails.
        Distribution("uniform-ball", beyond=_beyond_gaussian, number=2),
        Distribution("uniform-shell", beyond=_beyond_gaussian, number=3),
    )
}
DRAWN = tuple(name for name, distribution in DISTRIBUTIONS.items() if distribution.number is not None)
INDEPENDENT = tuple(name for name, distribution in DISTRIBUTIONS.items() if distribution.cdf)


def drawn(name: str | Distribution) -> Distribution:
    """Return the distribution of this name, one that the kernels draw."""
    return DISTRIBUTIONS[one_of(name, "distribution", DRAWN)]


def independent(distribution: str | Distribution) -> Distribution:
    """Return the distribution of this name, or the one given, where its components are independent."""
    if isinstance(distribution, str) and distribution not in DISTRIBUTIONS:
        raise InvalidInput(f"unknown distribution {distribution!r}; choose one of {', '.join(INDEPENDENT)}")
    noise = DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution
    if noise.cdf is None:
        raise InvalidInput(
            f"the components of {noise.name} noise depend on one another: its census has no closed form here; draw "
            "it (darkvocab trials), or take gaussian, which it tends to as the dimension grows"
        )
    return noise


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells of the columns that noise can move; components are independent, other columns stay at home.

    Cells come in runs of neighbours that count as equally probable; where a run is one cell, its
    probability is exact but for 2**-53. A component of active column j lies in run
    ``starts[j] + t`` where t of the column's edges are at or below its deviate.
    """

    grid: Grid
    distribution: Distribution
    home: Int64[np.ndarray, " dim"] = field(repr=False)  # ordered index of every component without noise
    columns: Int64[np.ndarray, " active"] = field(repr=False)  # that noise can move, and whose cells are listed
    unlisted: Int64[np.ndarray, " unlisted"] = field(repr=False)  # that noise can move, too
    starts: Int64[np.ndarray, " active_plus_one"] = field(repr=False)  # of each column's runs
    first: Int64[np.ndarray, " runs"] = field(repr=False)  # ordered index of the lowest cell of each run
    count: Int64[np.ndarray, " runs"] = field(repr=False)  # cells in it
    deviates: Float64[np.ndarray, " runs"] = field(repr=False)  # from which a component is beyond it; inf: the last
    neglected: float  # bound on the chance that any of the tokens leaves these cells

    @property
    def dim(self) -> int:
        return self.home.size

    @property
    def n_active(self) -> int:
        """Columns that noise can move."""
        return len(self.columns) + len(self.unlisted)

    @property
    def are_few(self) -> bool:
        """Return whether drawing cells pays: at most an eighth of the columns have too many to be listed."""
        return len(self.unlisted) <= self.dim / 8

    @cached_property
    def p(self) -> Float64[np.ndarray, " runs"]:
        """Probability of all cells of each run together, from the nearer tail."""
        z = self.deviates
        inner = np.isfinite(z)
        below, above = np.ones(z.size), np.zeros(z.size)
        below[inner], above[inner] = self.distribution.below(z[inner]), self.distribution.above(z[inner])
        below_first, above_first = np.roll(below, 1), np.roll(above, 1)
        below_first[self.starts[:-1]], above_first[self.starts[:-1]] = 0, 1
        inside = 1 - below_first - above
        inside = np.where(below <= 0.5, below - below_first, inside)
        inside = np.where(above_first <= 0.5, above_first - above, inside)
        return np.maximum(inside, 0)

    @cached_property
    def log_cell(self) -> Float64[np.ndarray, " runs"]:
        """Logarithm of the probability of one cell of each run; -inf where there is none."""
        with np.errstate(divide="ignore"):
            return np.log(self.p / self.count)

    @cached_property
    def log_likeliest(self) -> Float64[np.ndarray, " active"]:
        """Logarithm of the probability of each column's likeliest cell."""
        return np.maximum.reduceat(self.log_cell, self.starts[:-1]) if len(self.columns) else np.empty(0)

    @cached_property
    def cost(self) -> Float64[np.ndarray, " runs"]:
        """Nats by which a cell of each run is less probable than its column's likeliest."""
        return np.repeat(self.log_likeliest, np.diff(self.starts)) - self.log_cell

    def log_power_sums(self, n: float) -> Float64[np.ndarray, " active"]:
        """Return ``log sum_k p_k**n`` over the cells of each column, n > 0."""
        if not len(self.columns):
            return np.empty(0)
        sums = np.add.reduceat(self.count * np.exp(-n * self.cost), self.starts[:-1])
        return n * self.log_likeliest + np.log(sums)

    def log_power_sum(self, n: float) -> float:
        """``log sum p**n`` over all cells of the whole row: columns are independent, so a sum over columns."""
        return math.fsum(self.log_power_sums(n))

    @property
    def low(self) -> Int64[np.ndarray, " active"]:
        """Ordered index of each column's lowest cell."""
        return self.first[self.starts[:-1]]

    @property
    def shift(self) -> Int64[np.ndarray, " active"]:
        """Each column's lowest cell, minus its home."""
        return self.low - self.home[self.columns]

    @property
    def edge_starts(self) -> Int64[np.ndarray, " active_plus_one"]:
        """Start of each column's `thresholds`, of which it has one fewer than runs."""
        return self.starts - np.arange(len(self.starts))

    @cached_property
    def thresholds(self) -> UInt64[np.ndarray, " edges"]:
        """Uniform 64-bit words from which a component is beyond each run but its column's last.

        Exact but for 2**-64 each; Gaussian and Laplace noise only.
        """
        inner = np.ones(self.deviates.size, bool)
        inner[self.starts[1:] - 1] = False
        words = np.empty(int(inner.sum()), np.uint64)
        _backends.drawing.cdf_words(self.deviates[inner], self.distribution.name == "laplace", words)
        return words


class Ranges(NamedTuple):
    """Ordered index of every component without noise, and the lowest and highest that noise within reach gives it."""

    home: Int64[np.ndarray, " dim"]
    low: Int64[np.ndarray, " dim"]
    high: Int64[np.ndarray, " dim"]
