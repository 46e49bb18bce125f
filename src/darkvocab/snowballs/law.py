"""The law of a snowball: around which base, by which noise, on which grid; and a snowball, so many tokens of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int64

from ..errors import InvalidInput
from ..numerics import Grid, as_grid, round_to, ulp
from ..numerics.cells import Cells, Ranges, cell_ranges
from ..numerics.distributions import DISTRIBUTIONS, Distribution, drawn, independent
from ..numerics.grids import median_ulp
from .theory.occupancy import NEVER, Occupancy

ARITHMETICS = ("float32", "exact")
RUN = 1 / 32  # of sigma: neighbouring cells no wider than this together count as equally probable
MOST_CELLS = 128  # of a column whose cells are drawn: offsets from home fit into a signed byte


@dataclass(frozen=True, kw_only=True)
class SnowballLaw:
    """Law of a token's row, ``round(base + sigma * z)`` for noise z of standard deviation 1 a component.

    Gaussian, Laplace and uniform noise, and any `Distribution` with a distribution function, are
    independent in every component. Uniform in a ball of radius sqrt(dim + 2) or on a sphere of
    radius sqrt(dim), noise is independent from row to row only.

    Examples
    --------
    >>> law = SnowballLaw(base=np.array([1.0, 3.0]), sigma=0.001, arithmetic="exact")
    >>> round(law.occupancy(1000).n_unique.mean, 3), law.snowball(1000).n_tokens
    (2.046, 1000)
    """

    base: Float[np.ndarray, " dim"] = field(repr=False)  # weight units; float64 or any type that fits into float32
    sigma: float  # weight units, before rounding
    grid: str = "bfloat16"
    arithmetic: str = "float32"  # "float32": sum in float32, then round (the notebooks'); "exact": round once
    distribution: str | Distribution = "gaussian"  # its name is checked by what draws or lists it

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if self.base.ndim != 1 or not self.base.size:
            raise InvalidInput(f"base must be a vector of finite numbers, got shape {list(self.base.shape)}")
        if self.arithmetic not in ARITHMETICS:
            raise InvalidInput(f"unknown arithmetic {self.arithmetic!r}; choose one of {', '.join(ARITHMETICS)}")
        grid = as_grid(self.grid)
        if not max(self.base.max(), -self.base.min()) <= grid.max_value:  # NaN too
            beyond = np.flatnonzero(~(np.abs(self.base) <= grid.max_value))
            raise InvalidInput(
                f"base: component {beyond[0]} is {self.base[beyond[0]]:g}, beyond {grid.name}'s largest value "
                f"{grid.max_value:g}; choose a wider grid"
            )
        if self.is_float32:
            object.__setattr__(self, "base", self.base.astype(np.float32))

    @property
    def dim(self) -> int:
        return self.base.size

    @property
    def is_float32(self) -> bool:
        """True where the sum is rounded to float32 before it is to the grid."""
        return self.arithmetic == "float32"

    @cached_property
    def median_ulp(self) -> float:
        """Median over the components of the rounded base, weight units."""
        return median_ulp(round_to(self.base, self.grid), self.grid)

    def snowball(self, n_tokens: int) -> Snowball:
        return Snowball(**{name.name: getattr(self, name.name) for name in fields(SnowballLaw)}, n_tokens=n_tokens)

    def occupancy(self, n_tokens: int) -> Occupancy:
        """Return the expected census of so many tokens, as quickly where sigma is large.

        Tokens that some columns keep apart are apart. Where so few of the finest columns as are
        worth 760 nats bring the expected number of coincident pairs below what a float64 can hold,
        no other column is looked at. Raises InvalidInput as `cells`, and for fewer tokens than one
        or more than 1e15.

        Examples
        --------
        >>> census = SnowballLaw(base=np.linspace(0.001, 0.01, 2560), sigma=3e-3).occupancy(2100)
        >>> census.n_unique, census.cells.n_active, len(census.cells.columns) < 300
        (Moments(mean=2100.0, std=0.0), 2560, True)
        """
        Occupancy.check(n_tokens)
        if n_tokens > 1:
            enough = NEVER + math.log(n_tokens * (n_tokens - 1) / 2)
            some = Occupancy(self.cells(n_tokens, nats=1.05 * enough), n_tokens)
            if not len(some.cells.unlisted) or some.cells.log_power_sum(2) < -enough:
                return some
        return Occupancy(self.cells(n_tokens), n_tokens)

    def cells(self, n_tokens: float, nats: float = math.inf) -> Cells:
        """Return the cells within reach of so many tokens, in runs: alone where the grid is coarser than sigma / 64.

        Tokens and dimension say how far the tails are followed. Only the finest columns are listed,
        as many as it takes to bring ``log sum p**2`` below -nats (by an estimate; all columns where
        they do not). Raises InvalidInput for noise whose components depend on one another, or that
        overflows the grid.

        Examples
        --------
        >>> cells = SnowballLaw(base=np.array([1.0, 3.0]), sigma=0.001, arithmetic="exact").cells(1000)
        >>> cells.columns, cells.p.round(3)
        (array([0]), array([0.   , 0.025, 0.975, 0.   ]))
        """
        independent(self.distribution)
        ranges = self.ranges(n_tokens)
        active = np.flatnonzero(ranges.high > ranges.low)
        listed = _finest(self.base[active].astype(np.float64), self.sigma, as_grid(self.grid), nats)
        return self._listed(n_tokens, ranges, active[listed], np.delete(active, listed), self.sigma * RUN)

    def ranges(self, n_tokens: float) -> Ranges:
        """Return the cells within the reach of so many tokens; InvalidInput where noise overflows the grid."""
        return cell_ranges(self.base, self.sigma, self._reach(n_tokens), as_grid(self.grid), self.is_float32)

    def _reach(self, n_tokens: float) -> float:
        return self._noise.reach(max(1.0, n_tokens) * self.dim)

    @property
    def _noise(self) -> Distribution:
        known = DISTRIBUTIONS.get(self.distribution) if isinstance(self.distribution, str) else self.distribution
        return known or independent(self.distribution)

    def _listed(
        self, n_tokens: float, ranges: Ranges, columns: np.ndarray, unlisted: np.ndarray, width: float
    ) -> Cells:
        """Return the cells of these columns, in runs no wider than `width` (weight units), or alone.

        Deviates between runs are those of ``round(f32(base + f32(f32(z) * f32(sigma))))`` with its
        double rounding, or of one rounding of the real sum.
        """
        from ..numerics._backends.drawing import edge_deviates, run_edges

        grid = as_grid(self.grid)
        low, high = ranges.low[columns], ranges.high[columns]
        starts = np.empty(columns.size + 1, np.int64)
        extents = low, high, width, *grid.constants, starts
        last = np.empty(run_edges(*extents, np.empty(0, np.int64)), np.int64)
        run_edges(*extents, last)
        first = np.empty_like(last)
        first[1:] = last[:-1] + 1
        first[starts[:-1]] = low
        z = np.full(last.size, np.inf)
        base = self.base[columns].astype(np.float64)
        edge_deviates(base, starts, last, self.sigma, self.is_float32, *grid.constants[:2], z)
        return Cells(
            grid=grid,
            distribution=self._noise,
            home=ranges.home,
            columns=columns,
            unlisted=unlisted,
            starts=starts,
            first=first,
            count=last - first + 1,
            deviates=z,
            neglected=n_tokens * self.dim * self._noise.tails(self._reach(n_tokens)),
        )


@dataclass(frozen=True, kw_only=True)
class Snowball(SnowballLaw):
    """A snowball to be drawn: `n_tokens` rows of its law, of Gaussian, Laplace, ball or shell noise."""

    n_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_tokens < 0:
            raise InvalidInput(f"n_tokens must be >= 0, got {self.n_tokens}")
        drawn(self.distribution)

    @property
    def has_cells(self) -> bool:
        """True where components are independent, so that each can be drawn on its own."""
        return self._noise.cdf is not None

    def single_cells(self) -> Cells:
        """Cells one by one, to draw from: of the columns with at most 128; of others none are listed."""
        ranges = self.ranges(self.n_tokens)
        spread = ranges.high - ranges.low
        columns, unlisted = np.flatnonzero((spread > 0) & (spread < MOST_CELLS)), np.flatnonzero(spread >= MOST_CELLS)
        return self._listed(self.n_tokens, ranges, columns, unlisted, 0.0)


def check_sigma(sigma: float) -> None:
    """Refuse a sigma that is negative, infinite or no number."""
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise InvalidInput(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")


def _finest(base: np.ndarray, sigma: float, grid: Grid, nats: float) -> Int64[np.ndarray, " some"]:
    """Places of the columns in which sigma is most grid spacings that together are worth so many nats; or of all.

    A Gaussian over cells of one width w has a sum of squared probabilities of about
    ``w / (2 sqrt(pi) sigma)``.
    """
    if nats == math.inf:
        return np.arange(base.size)
    spacings: Float64[np.ndarray, " dim"] = sigma / ulp(np.minimum(np.abs(base) + sigma, grid.max_value), grid)
    order = np.argsort(-spacings, kind="stable")
    worth = np.log(np.maximum(2 * math.sqrt(math.pi) * spacings[order], 1))
    return np.sort(order[: int(np.searchsorted(np.cumsum(worth), nats)) + 1])
