"""Columns: with what probability each component of a snowball's token takes each value of the grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import ndtr

from ...errors import InvalidInput
from ...numerics import Grid, as_grid, ulp
from ...numerics.cells import ARITHMETICS, NEGLECTED, cell_ranges

RUN = 1 / 32  # of sigma: neighbouring cells no wider than this together count as equally probable
FARTHEST = 2.0**19  # standard deviations that noise can reach

Function = Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Marginal:
    """Distribution of the noise of one component over sigma, by its distribution function.

    `cdf` and `sf` (its complement) are vectorised; only where `sf` is given are probabilities in the upper tail exact
    to more than 1e-16. Standard deviation 1 where sigma is to be the standard deviation of a component.
    """

    name: str
    cdf: Function
    sf: Function | None = None

    def above(self, z: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """P(Z > z)."""
        return self.sf(z) if self.sf else 1 - self.cdf(z)

    def reach(self, n_components: float) -> float:
        """Least of 1/16, 2/16, ... that any of n deviates exceeds in size with probability 1e-9 at most (union bound).

        Raises
        ------
        InvalidInput
            A tail so heavy that it lies beyond 2**19.
        """
        return _reach(self, float(n_components))


@lru_cache(maxsize=256)
def _reach(marginal: Marginal, n_components: float) -> float:
    def too_near(sixteenths: int) -> bool:
        z = np.array([sixteenths / 16])
        return float((marginal.above(z) + marginal.cdf(-z))[0]) * n_components > NEGLECTED

    near, far = 0, 16
    while too_near(far):
        near, far = far, 2 * far
        if far / 16 > FARTHEST:
            raise InvalidInput(
                f"the tails of {marginal.name} are too heavy: of {n_components:.3g} components some reach beyond "
                f"{FARTHEST:g} sigma with a probability above {NEGLECTED:g}"
            )
    while far - near > 1:
        middle = (near + far) // 2
        near, far = (middle, far) if too_near(middle) else (near, middle)
    return far / 16


def _laplace(z: np.ndarray) -> np.ndarray:
    tail = 0.5 * np.exp(-np.abs(z) * math.sqrt(2.0))
    return np.where(z < 0, tail, 1 - tail)


def _uniform(z: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + z / math.sqrt(12.0), 0, 1)


MARGINALS = {
    "gaussian": Marginal("gaussian", ndtr, lambda z: ndtr(-z)),
    "laplace": Marginal("laplace", _laplace, lambda z: _laplace(-z)),
    "uniform": Marginal("uniform", _uniform, lambda z: _uniform(-z)),
}


def as_marginal(distribution: str | Marginal) -> Marginal:
    """The `Marginal` of this name; a `Marginal` passes through.

    Raises
    ------
    InvalidInput
        Unknown name, or a distribution whose components depend on one another.
    """
    if isinstance(distribution, Marginal):
        return distribution
    if distribution in ("uniform-ball", "uniform-shell"):
        raise InvalidInput(
            f"the components of {distribution} noise depend on one another: its census has no closed form here; draw "
            "it (darkvocab trials), or take gaussian, which it tends to as the dimension grows"
        )
    if distribution not in MARGINALS:
        raise InvalidInput(f"unknown distribution {distribution!r}; choose one of {', '.join(MARGINALS)}")
    return MARGINALS[distribution]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Cell probabilities of every column that noise can move; components are independent, other columns stay at home.

    Cells come in runs of neighbours that count as equally probable: a run of one, exact but for 2**-53, wherever the
    grid's spacing is above sigma / 64; else no wider than sigma / 32.
    """

    grid: Grid
    sigma: float  # weight units
    home: Int64[np.ndarray, " dim"] = field(repr=False)  # ordered index of every component without noise
    columns: Int64[np.ndarray, " active"] = field(repr=False)
    starts: Int64[np.ndarray, " active_plus_one"] = field(repr=False)  # of each column's runs
    first: Int64[np.ndarray, " runs"] = field(repr=False)  # ordered index of the lowest cell of each run
    count: Int64[np.ndarray, " runs"] = field(repr=False)  # cells in it
    p: Float64[np.ndarray, " runs"] = field(repr=False)  # probability of all its cells together
    neglected: float  # bound on the chance that any of the tokens leaves these cells
    n_active: int  # columns that noise can move: more than `columns` where only some were asked for

    @property
    def dim(self) -> int:
        return self.home.size

    @cached_property
    def log_cell(self) -> Float64[np.ndarray, " runs"]:
        """Logarithm of the probability of one cell of each run; -inf where there is none."""
        with np.errstate(divide="ignore"):
            return np.log(self.p / self.count)

    @cached_property
    def log_likeliest(self) -> Float64[np.ndarray, " active"]:
        """Logarithm of the probability of each column's likeliest cell."""
        return np.maximum.reduceat(self.log_cell, self.starts[:-1]) if len(self.columns) else np.empty(0)

    def log_power_sums(self, n: float) -> Float64[np.ndarray, " active"]:
        """Of each column ``log sum_k p_k**n`` over its cells, n > 0."""
        if not len(self.columns):
            return np.empty(0)
        top = np.repeat(self.log_likeliest, np.diff(self.starts))
        terms = self.count * np.exp(n * (self.log_cell - top))
        return n * self.log_likeliest + np.log(np.add.reduceat(terms, self.starts[:-1]))

    def log_power_sum(self, n: float) -> float:
        """``log sum p**n`` over all cells of the whole row: columns are independent, so a sum over columns."""
        return math.fsum(self.log_power_sums(n))


def columns(
    base: Float[np.ndarray, " dim"],
    sigma: float,
    n_tokens: float,
    grid: str | Grid = "bfloat16",
    arithmetic: str = "float32",
    distribution: str | Marginal = "gaussian",
    nats: float = math.inf,
) -> Columns:
    """Cell probabilities of ``round(base + sigma * z)``, z independent in every component.

    Parameters
    ----------
    base : [dim], weight units
    sigma : standard deviation of the noise, weight units, before rounding
    n_tokens : how many tokens there are to be; with the dimension it says how far the tails are followed
    arithmetic : "float32", the chain ``round(f32(base + f32(f32(z) * f32(sigma))))`` with its double rounding, whose
        thresholds are found exactly; or "exact", one rounding of the real sum
    distribution : a key of `MARGINALS`, or a `Marginal`
    nats : only the finest columns, as many as it takes to bring ``log sum p**2`` below -nats (by an
        estimate; all columns where they do not)

    Raises
    ------
    InvalidInput
        A sigma that is not finite or is negative, unknown names, noise that overflows the grid.

    Examples
    --------
    >>> made = columns(np.array([1.0, 3.0]), 0.001, 1000, arithmetic="exact")
    >>> made.columns, made.p.round(3)
    (array([0]), array([0.   , 0.025, 0.975, 0.   ]))
    """
    from ...numerics._backends.runs import edge_deviates, run_edges

    grid, marginal = as_grid(grid), as_marginal(distribution)
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise InvalidInput(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")
    if arithmetic not in ARITHMETICS:
        raise InvalidInput(f"unknown arithmetic {arithmetic!r}; choose one of {', '.join(ARITHMETICS)}")
    reach = marginal.reach(max(1.0, n_tokens) * base.size)
    home, low, high = cell_ranges(base, sigma, reach, grid, arithmetic)
    active = np.flatnonzero(high > low)
    n_active = active.size
    active = active[_finest(base[active].astype(np.float64), sigma, grid, nats)]
    low, high = low[active], high[active]
    shape = grid.mantissa_bits, grid.min_exponent
    starts = np.empty(active.size + 1, np.int64)
    how = low, high, sigma * RUN, *shape, grid.max_code, starts
    last = np.empty(run_edges(*how, np.empty(0, np.int64)), np.int64)
    run_edges(*how, last)
    first = np.empty_like(last)
    first[1:] = last[:-1] + 1
    first[starts[:-1]] = low
    z = np.full(last.size, np.inf)
    around = base[active].astype(np.float32 if arithmetic == "float32" else np.float64).astype(np.float64)
    edge_deviates(around, starts, last, sigma, arithmetic == "float32", *shape, z)
    return Columns(
        grid=grid,
        sigma=sigma,
        home=home,
        columns=active,
        starts=starts,
        first=first,
        count=last - first + 1,
        p=_between(z, starts, marginal),
        neglected=NEGLECTED,
        n_active=n_active,
    )


def _finest(base: np.ndarray, sigma: float, grid: Grid, nats: float) -> Int64[np.ndarray, " some"]:
    """Places of the columns in which sigma is most grid spacings that together are worth so many nats; or of all.

    A Gaussian over cells of one width w has a sum of squared probabilities of about ``w / (2 sqrt(pi) sigma)``.
    """
    if nats == math.inf:
        return np.arange(base.size)
    spacings = sigma / ulp(np.minimum(np.abs(base) + sigma, grid.max_value), grid)
    order = np.argsort(-spacings, kind="stable")
    worth = np.log(np.maximum(2 * math.sqrt(math.pi) * spacings[order], 1))
    return np.sort(order[: int(np.searchsorted(np.cumsum(worth), nats)) + 1])


def _between(z: np.ndarray, starts: np.ndarray, marginal: Marginal) -> Float64[np.ndarray, " runs"]:
    """Probability between each column's consecutive deviates, from the nearer tail."""
    below, above = np.ones(z.size), np.zeros(z.size)
    inner = np.isfinite(z)
    below[inner], above[inner] = marginal.cdf(z[inner]), marginal.above(z[inner])
    below_first, above_first = np.roll(below, 1), np.roll(above, 1)
    below_first[starts[:-1]], above_first[starts[:-1]] = 0, 1
    inside = 1 - below_first - above
    inside = np.where(below <= 0.5, below - below_first, inside)
    inside = np.where(above_first <= 0.5, above_first - above, inside)
    return np.maximum(inside, 0)
