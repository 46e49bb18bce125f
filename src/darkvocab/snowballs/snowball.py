"""Snowballs: the distribution of a row (a base plus noise, rounded to a grid), and tokens drawn from it."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Integer, UInt

from ..errors import InvalidInput, at_least, one_of
from ..measures.geometry import Geometry
from ..numerics import Grid, Groups, _backends, as_grid, from_index, identical_rows, round_to, ulp
from ..numerics.cells import DISTRIBUTIONS, Cells, Distribution, Ranges, drawn, independent
from ..runs.randomness import check_seed
from .theory.occupancy import UNDERFLOW, Occupancy

SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text("utf-8"))
ARITHMETICS = ("float32", "exact")
SAMPLERS = ("sparse", "dense", "notebook")
RUN = 1 / 32  # in sigma: cells in a run no wider than this count as equally probable
MOST_CELLS = 128  # of a column whose cells are drawn one by one: offsets from home fit into a signed byte


@dataclass(frozen=True, kw_only=True)
class SnowballLaw:
    """Distribution of a token's row, ``round(base + sigma * z)``; each component of the noise z has variance 1.

    The components of Gaussian, Laplace and uniform noise are independent, and so are those of any
    `Distribution` with a CDF. Noise that is uniform in a ball of radius sqrt(dim + 2) or on a sphere
    of radius sqrt(dim) is independent from row to row only.

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
    distribution: str | Distribution = "gaussian"  # a name is checked where rows are drawn or cells listed

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if self.base.ndim != 1 or not self.base.size:
            raise InvalidInput(f"base must be a vector of finite numbers, got shape {list(self.base.shape)}")
        one_of(self.arithmetic, "arithmetic", ARITHMETICS)
        grid = as_grid(self.grid)
        if not max(self.base.max(), -self.base.min()) <= grid.max_value:  # NaN too
            beyond = np.flatnonzero(~(np.abs(self.base) <= grid.max_value))
            first = {"component": beyond[0], "value": self.base[beyond[0]]}
            raise InvalidInput(SENTENCES["base_beyond"].format(**first, grid=grid))
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
        """Median over the components of the rounded base, weight units: it makes sigmas comparable between bases."""
        return float(np.median(ulp(round_to(self.base, self.grid), self.grid)))

    def snowball(self, n_tokens: int) -> Snowball:
        return Snowball(**{name.name: getattr(self, name.name) for name in fields(SnowballLaw)}, n_tokens=n_tokens)

    def occupancy(self, n_tokens: int) -> Occupancy:
        """Return the expected census of `n_tokens` tokens.

        For a large sigma the columns with the finest spacing decide alone: if they bring the
        expected number of coincident pairs below what float64 can hold (e**-760), the other columns
        are skipped. Raises InvalidInput as `cells`, and for fewer than 1 or more than 1e15 tokens.

        Examples
        --------
        >>> census = SnowballLaw(base=np.linspace(0.001, 0.01, 2560), sigma=3e-3).occupancy(2100)
        >>> census.n_unique, census.cells.n_active, len(census.cells.columns) < 300
        (Moments(mean=2100.0, std=0.0), 2560, True)
        """
        Occupancy.check(n_tokens)
        if n_tokens > 1:
            enough = UNDERFLOW + math.log(n_tokens * (n_tokens - 1) / 2)
            some = Occupancy(self.cells(n_tokens, nats=1.05 * enough), n_tokens)
            if not len(some.cells.unlisted) or some.cells.log_power_sum(2) < -enough:
                return some
        return Occupancy(self.cells(n_tokens), n_tokens)

    def cells(self, n_tokens: float, nats: float = math.inf) -> Cells:
        """Return the cells that `n_tokens` tokens can reach, in runs; where the spacing exceeds sigma / 64, one by one.

        Tokens and dimension decide how far the tails are followed. Columns are listed from the finest
        spacing on, until ``log sum p**2`` is estimated to fall below -nats. Raises InvalidInput for
        noise whose components depend on each other, or that overflows the grid.

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
        """Return the cells that `n_tokens` tokens can reach; raises InvalidInput where noise overflows the grid."""
        grid = as_grid(self.grid)
        reach = self._reach(n_tokens)
        ends = np.repeat(np.array([0, -reach, reach], np.float32), self.dim).reshape(3, self.dim)  # multiples of 1/16
        ranges = np.empty(ends.shape, np.int64)
        around = self.base.astype(np.float64), ends, self.sigma, self.is_float32
        if _backends.rounding.perturb(*around, *grid.constants, ranges):
            raise InvalidInput(SENTENCES["reach_overflows"].format(sigma=self.sigma, grid=grid, reach=reach))
        return Ranges(*ranges)

    def _reach(self, n_tokens: float) -> float:
        return self._noise.reach(max(1.0, n_tokens) * self.dim)

    @property
    def _noise(self) -> Distribution:
        known = DISTRIBUTIONS.get(self.distribution) if isinstance(self.distribution, str) else self.distribution
        return known or independent(self.distribution)

    def _listed(self, n_tokens: float, ranges: Ranges, columns: np.ndarray, others: np.ndarray, width: float) -> Cells:
        """Return the cells of these columns, in runs no wider than `width` (weight units).

        Runs are bounded by the deviates z at which ``round(f32(base + f32(f32(z) * f32(sigma))))``,
        with its double rounding, changes; or at which one rounding of the real sum does.
        """
        grid = as_grid(self.grid)
        low = ranges.low[columns]
        starts = np.empty(columns.size + 1, np.int64)
        extents = low, ranges.high[columns], width, *grid.constants, starts
        last = np.empty(_backends.drawing.run_edges(*extents, np.empty(0, np.int64)), np.int64)
        _backends.drawing.run_edges(*extents, last)
        first = np.empty_like(last)
        first[1:] = last[:-1] + 1
        first[starts[:-1]] = low
        z = np.full(last.size, np.inf)
        base = self.base[columns].astype(np.float64)
        kind = self.sigma, self.is_float32, *grid.constants[:2]
        _backends.drawing.edge_deviates(base, starts, last, *kind, z)
        return Cells(
            grid=grid,
            distribution=self._noise,
            home=ranges.home,
            columns=columns,
            unlisted=others,
            starts=starts,
            first=first,
            count=last - first + 1,
            deviates=z,
            neglected=n_tokens * self.dim * self._noise.tails(self._reach(n_tokens)),
        )


@dataclass(frozen=True, kw_only=True)
class Snowball(SnowballLaw):
    """A snowball to draw: `n_tokens` rows of one law, with Gaussian, Laplace, ball or shell noise."""

    n_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, n_tokens=self.n_tokens)
        drawn(self.distribution)

    @property
    def has_cells(self) -> bool:
        """True where components are independent, so that each can be drawn on its own."""
        return self._noise.cdf is not None

    def single_cells(self) -> Cells:
        """Return the single cells to draw from, in the columns that have at most 128; other columns are not listed."""
        ranges = self.ranges(self.n_tokens)
        spread = ranges.high - ranges.low
        columns = np.flatnonzero((spread > 0) & (spread < MOST_CELLS))
        return self._listed(self.n_tokens, ranges, columns, np.flatnonzero(spread >= MOST_CELLS), 0.0)


def check_sigma(sigma: float) -> None:
    """Raise InvalidInput for a sigma that is negative, infinite or NaN."""
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise InvalidInput(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")


def _finest(base: np.ndarray, sigma: float, grid: Grid, nats: float) -> Int64[np.ndarray, " some"]:
    """Return the positions of the finest columns, relative to sigma, which bring -log sum p**2 to `nats`.

    For a Gaussian over cells of width w, the sum of squared probabilities is about
    ``w / (2 sqrt(pi) sigma)``.
    """
    if nats == math.inf:
        return np.arange(base.size)
    spacings: Float64[np.ndarray, " dim"] = sigma / ulp(np.minimum(np.abs(base) + sigma, grid.max_value), grid)
    order = np.argsort(-spacings, kind="stable")
    worth = np.log(np.maximum(2 * math.sqrt(math.pi) * spacings[order], 1))
    return np.sort(order[: int(np.searchsorted(np.cumsum(worth), nats)) + 1])


@dataclass(frozen=True, kw_only=True)
class DrawnCloud:
    """Rows of one drawn snowball, as offsets from home in the drawn columns; the other columns are at home."""

    grid: Grid
    home: Int64[np.ndarray, " dim"] = field(repr=False)  # ordered index of the rounded base; 0 where codes are indices
    columns: Int64[np.ndarray, " drawn"] = field(repr=False)
    codes: Integer[np.ndarray, "n_tokens drawn"] = field(repr=False)  # ordered index minus home
    sampler: str  # "sparse", "dense" or "notebook"
    neglected: float  # bound on the probability that leaving out the far tails changed these rows

    def groups(self) -> Groups:
        """Return the groups of tokens with equal rows (-0.0 equals 0.0)."""
        return identical_rows(self.codes.view(f"u{self.codes.itemsize}"), bitwise=True, threads=1)

    @property
    def n_drawn(self) -> int:
        return len(self.columns)

    def geometry(self, groups: Groups, over: str) -> Geometry:
        """Return the distances between rows; `over` selects them, as in `Groups.select`."""
        tokens, weights = groups.select(over)
        return Geometry(self.index(tokens), self.grid, over=over, weights=weights)

    def index(self, tokens: Int64[np.ndarray, " k"] | None = None) -> Integer[np.ndarray, "k drawn"]:
        """Return the ordered indices of the rows of these tokens (ascending; None: all), in the drawn columns."""
        home = self.home[self.columns]
        codes = self.codes if tokens is None or len(tokens) == len(self.codes) else self.codes[tokens]
        return codes + home.astype(f"i{max(4, self.grid.bits // 8)}") if home.any() else codes

    def elements(self, tokens: Int64[np.ndarray, " k"], columns: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the ordered index of component ``columns[i]`` (as the base numbers them) of ``tokens[i]``."""
        place = np.full(self.home.size, -1)
        place[self.columns] = np.arange(len(self.columns))
        drawn = place[columns]
        index = self.home[columns]
        index[drawn >= 0] += self.codes[tokens[drawn >= 0], drawn[drawn >= 0]]
        return index

    def words(self) -> UInt[np.ndarray, "n_tokens dim"]:
        """Return all rows as bit patterns of the grid; zeros are +0.0."""
        rows = np.tile(from_index(self.home, self.grid), (len(self.codes), 1))
        rows[:, self.columns] = from_index(self.index(), self.grid)
        return rows


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One trial to draw: snowball, seed, point, trial and sampler, which alone decide the rows."""

    snowball: Snowball
    seed: int
    point: int
    trial: int
    sampler: str
    cells: Cells | None = field(default=None, repr=False)  # for the sparse sampler
    noise: Float32[np.ndarray, "n_tokens dim"] | None = field(default=None, repr=False)  # for the notebook sampler

    @property
    def is_sparse(self) -> bool:
        """True where cells are drawn, rather than deviates."""
        return self.sampler == "sparse" and self.cells is not None and self.cells.are_few

    def cloud(self) -> DrawnCloud:
        if self.noise is not None:
            return perturb(self.snowball, self.noise)
        if self.cells is not None and self.is_sparse:
            return self._sparse(self.cells)
        index = self._dense(self.snowball.base, stream=0)
        return _whole(self.snowball, index, "dense", index.size * 2.0**-64)

    def _sparse(self, cells: Cells) -> DrawnCloud:
        codes = np.zeros((self.snowball.n_tokens, len(cells.columns)), np.int8)
        of_trial = self.seed & 0xFFFFFFFF, self.seed >> 32, self.point, self.trial
        tables = cells.columns, cells.shift, cells.edge_starts, cells.thresholds
        _backends.drawing.draw_sparse(*tables, *of_trial, codes, *_backends.drawing.room())
        columns = cells.columns
        home = cells.home
        if len(cells.unlisted):  # drawn densely: codes are ordered indices, so home is 0
            wide = self._dense(self.snowball.base[cells.unlisted], stream=1)
            columns = np.concatenate([columns, cells.unlisted])
            order = np.argsort(columns)  # columns in the base's order keep the lexicographic order of rows
            codes = np.concatenate([codes.astype(wide.dtype), wide], axis=1).take(order, axis=1)
            columns = columns[order]
            home = home.copy()
            home[cells.unlisted] = 0
        return DrawnCloud(
            grid=cells.grid, home=home, columns=columns, codes=codes, sampler="sparse", neglected=cells.neglected
        )

    def _dense(self, base: np.ndarray, *, stream: int) -> Integer[np.ndarray, "n_tokens drawn"]:
        """Draw rows around these components from one of the trial's two random streams; return ordered indices."""
        snowball = self.snowball
        grid = as_grid(snowball.grid)
        index = np.empty((snowball.n_tokens, base.size), f"i{grid.bits // 8}")  # as many bits as its words
        kind = drawn(snowball.distribution).number, snowball.is_float32, stream
        trial = np.uint64(self.seed), self.point, self.trial, grid.constants
        overflows = _backends.deviates.draw_dense(base.astype(np.float64), snowball.sigma, *kind, *trial, index)
        refuse_overflow(overflows, snowball)
        return index


def draw(
    snowball: Snowball,
    *,
    seed: int = 0,
    point: int = 0,
    trial: int = 0,
    sampler: str = "sparse",
    cells: Cells | None = None,
) -> DrawnCloud:
    """Draw one snowball; the arguments alone decide the rows.

    Raises InvalidInput for an unknown sampler, or noise that overflows the grid.

    Parameters
    ----------
    sampler : "dense" draws a deviate for every component. "sparse" draws the cell of every component
        in the columns that noise can move, and is "dense" where more than an eighth of the columns
        have over 128 cells, or where components are not independent. The two distributions agree
        up to `DrawnCloud.neglected` and 2**-30 a cell.
    cells : ``snowball.single_cells()``, to save computing it again
    """
    if sampler not in ("sparse", "dense"):
        raise InvalidInput(f"unknown sampler {sampler!r}; draw knows sparse and dense (for notebook: perturb)")
    if sampler == "sparse" and snowball.has_cells:
        cells = cells or snowball.single_cells()
    check_seed(seed)
    return Draw(snowball=snowball, seed=seed, point=point, trial=trial, sampler=sampler, cells=cells).cloud()


def perturb(snowball: Snowball, z: Float32[np.ndarray, "n_tokens dim"]) -> DrawnCloud:
    """Return ``base + z * sigma``, rounded; raises InvalidInput where it overflows the grid or z has another shape."""
    if z.shape != (snowball.n_tokens, snowball.dim):
        raise InvalidInput(f"noise must be {snowball.n_tokens} x {snowball.dim}, got {list(z.shape)}")
    grid = as_grid(snowball.grid)
    index = np.empty(z.shape, f"i{grid.bits // 8}")  # as many bits as its words
    around = snowball.base.astype(np.float64), z, snowball.sigma, snowball.is_float32
    refuse_overflow(_backends.rounding.perturb(*around, *grid.constants, index), snowball)
    return _whole(snowball, index, "notebook", 0.0)


def _whole(snowball: Snowball, index: np.ndarray, sampler: str, neglected: float) -> DrawnCloud:
    return DrawnCloud(
        grid=as_grid(snowball.grid),
        home=np.zeros(snowball.dim, np.int64),
        columns=np.arange(snowball.dim),
        codes=index,
        sampler=sampler,
        neglected=neglected,
    )


def refuse_overflow(overflows: int, snowball: Snowball) -> None:
    """Raise InvalidInput if any components (`overflows` of them) overflow the snowball's grid."""
    if overflows:
        raise InvalidInput(SENTENCES["overflows"].format(sigma=snowball.sigma, grid=as_grid(snowball.grid)))
