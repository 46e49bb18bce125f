"""One snowball: a base vector plus noise on every component, rounded to a number grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt

from ..errors import InvalidInput
from ..measures.geometry import Geometry
from ..numerics import Grid, Groups, as_grid, from_index, identical_rows
from ..numerics.cells import Cells
from ..numerics.distributions import drawn
from ..runs.randomness import check_seed
from .law import Snowball

SAMPLERS = ("sparse", "dense", "notebook")


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Drawn rows, as differences from home in the columns drawn; all other columns are at home."""

    grid: Grid
    home: Int64[np.ndarray, " dim"] = field(repr=False)  # ordered index of the rounded base; 0 where codes are whole
    columns: Int64[np.ndarray, " drawn"] = field(repr=False)
    codes: Integer[np.ndarray, "n_tokens drawn"] = field(repr=False)  # ordered index minus home
    sampler: str  # that drew: "sparse", "dense" or "notebook"
    neglected: float  # bound on the chance that the sampler's neglect of far tails shows in these rows

    def groups(self) -> Groups:
        """Tokens with equal rows (-0.0 = 0.0)."""
        words = self.codes.view(f"u{self.codes.itemsize}")
        return identical_rows(words, bitwise=True, threads=1)

    @property
    def n_drawn(self) -> int:
        return len(self.columns)

    def geometry(self, groups: Groups, over: str) -> Geometry:
        """Distances over some of its rows, as `Groups.select` names them."""
        tokens, weights = groups.select(over)
        return Geometry(self.index(tokens), self.grid, over=over, weights=weights)

    def index(self, tokens: Int64[np.ndarray, " k"] | None = None) -> Integer[np.ndarray, "k drawn"]:
        """Ordered indices of the rows of these tokens, ascending, in the drawn columns."""
        home = self.home[self.columns]
        codes = self.codes if tokens is None or len(tokens) == len(self.codes) else self.codes[tokens]
        return codes + home.astype(f"i{max(4, self.grid.bits // 8)}") if home.any() else codes

    def elements(self, tokens: Int64[np.ndarray, " k"], columns: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Ordered indices of single components, of the columns as the base numbers them."""
        place = np.full(self.home.size, -1)
        place[self.columns] = np.arange(len(self.columns))
        drawn = place[columns]
        index = self.home[columns]
        index[drawn >= 0] += self.codes[tokens[drawn >= 0], drawn[drawn >= 0]]
        return index

    def words(self) -> UInt[np.ndarray, "n_tokens dim"]:
        """All rows as words of the grid; zeros are +0.0."""
        rows = np.tile(from_index(self.home, self.grid), (len(self.codes), 1))
        rows[:, self.columns] = from_index(self.index(), self.grid)
        return rows


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A snowball to be drawn, for which trial and by which sampler: what is drawn is a function of these alone."""

    snowball: Snowball
    seed: int
    point: int
    trial: int
    sampler: str
    cells: Cells | None = field(default=None, repr=False)  # of the snowball, for the sparse sampler
    noise: Float32[np.ndarray, "n_tokens dim"] | None = field(default=None, repr=False)  # of the notebook sampler

    @property
    def is_sparse(self) -> bool:
        """True where cells are drawn, rather than deviates."""
        return self.sampler == "sparse" and self.cells is not None and self.cells.are_few

    def cloud(self) -> Cloud:
        if self.noise is not None:
            return perturb(self.snowball, self.noise)
        if self.cells is not None and self.is_sparse:
            return self._sparse(self.cells)
        index = self._dense(self.snowball.base, stream=0)
        return _whole(self.snowball, index, "dense", index.size * 2.0**-64)

    def _sparse(self, cells: Cells) -> Cloud:
        from ..numerics._backends.drawing import draw_sparse, room

        codes = np.zeros((self.snowball.n_tokens, len(cells.columns)), np.int8)
        of_trial = self.seed & 0xFFFFFFFF, self.seed >> 32, self.point, self.trial
        draw_sparse(cells.columns, cells.shift, cells.edge_starts, cells.thresholds, *of_trial, codes, *room())
        columns, home = cells.columns, cells.home
        if len(cells.unlisted):  # these by their indices, as a dense draw, from a home of 0
            wide = self._dense(self.snowball.base[cells.unlisted], stream=1)
            columns = np.concatenate([columns, cells.unlisted])
            order = np.argsort(columns)  # as the base has them, so that rows keep their lexicographic order
            codes = np.concatenate([codes.astype(wide.dtype), wide], axis=1).take(order, axis=1)
            columns = columns[order]
            home = home.copy()
            home[cells.unlisted] = 0
        return Cloud(
            grid=cells.grid, home=home, columns=columns, codes=codes, sampler="sparse", neglected=cells.neglected
        )

    def _dense(self, base: np.ndarray, *, stream: int) -> Integer[np.ndarray, "n_tokens drawn"]:
        """Ordered indices of rows around these components, from one of two streams of the trial."""
        from ..numerics._backends.deviates import draw_dense

        snowball = self.snowball
        index = _empty_index(snowball, (snowball.n_tokens, base.size))
        kind = drawn(snowball.distribution).number, snowball.is_float32, stream
        of_trial = np.uint64(self.seed), self.point, self.trial
        shape = as_grid(snowball.grid).constants
        refuse_overflow(draw_dense(base.astype(np.float64), snowball.sigma, *kind, *of_trial, shape, index), snowball)
        return index


def draw(
    snowball: Snowball,
    *,
    seed: int = 0,
    point: int = 0,
    trial: int = 0,
    sampler: str = "sparse",
    cells: Cells | None = None,
) -> Cloud:
    """Draw one snowball, as a function of the arguments alone.

    Raises InvalidInput for an unknown sampler, or noise that overflows the grid.

    Parameters
    ----------
    sampler : "sparse" draws the cell of every component in the columns that noise can move, and
        falls back on "dense" where more than an eighth of the columns have over 128 cells, or
        components are not independent; "dense" draws a deviate for every component. Their laws
        agree but for `Cloud.neglected` and 2**-30 a cell.
    cells : ``snowball.single_cells()``, where the caller has it already
    """
    if sampler not in ("sparse", "dense"):
        raise InvalidInput(f"unknown sampler {sampler!r}; draw knows sparse and dense (for notebook: perturb)")
    if sampler == "sparse" and snowball.has_cells:
        cells = cells or snowball.single_cells()
    return Draw(
        snowball=snowball, seed=check_seed(seed), point=point, trial=trial, sampler=sampler, cells=cells
    ).cloud()


def perturb(snowball: Snowball, z: Float32[np.ndarray, "n_tokens dim"]) -> Cloud:
    """Return ``base + z * sigma``, rounded; InvalidInput where it overflows the grid or z has another shape."""
    from ..numerics._backends import rounding

    if z.shape != (snowball.n_tokens, snowball.dim):
        raise InvalidInput(f"noise must be {snowball.n_tokens} x {snowball.dim}, got {list(z.shape)}")
    index = _empty_index(snowball, z.shape)
    around = snowball.base.astype(np.float64), z, snowball.sigma, snowball.is_float32
    overflows = rounding.perturb(*around, *as_grid(snowball.grid).constants, index)
    refuse_overflow(overflows, snowball)
    return _whole(snowball, index, "notebook", 0.0)


def _empty_index(snowball: Snowball, shape: tuple[int, ...]) -> np.ndarray:
    """Room for ordered indices: a grid's indices need as many bits as its words."""
    return np.empty(shape, f"i{as_grid(snowball.grid).bits // 8}")


def _whole(snowball: Snowball, index: np.ndarray, sampler: str, neglected: float) -> Cloud:
    return Cloud(
        grid=as_grid(snowball.grid),
        home=np.zeros(snowball.dim, np.int64),
        columns=np.arange(snowball.dim),
        codes=index,
        sampler=sampler,
        neglected=neglected,
    )


def refuse_overflow(overflows: int, snowball: Snowball) -> None:
    """Raise InvalidInput where components overflow the snowball's grid."""
    if overflows:
        grid = as_grid(snowball.grid)
        raise InvalidInput(
            f"sigma {snowball.sigma:g} overflows {grid.name} (largest value {grid.max_value:g}); "
            "choose a smaller sigma or a wider grid"
        )
