"""One snowball: a base vector plus noise on every component, rounded to a number grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer, UInt

from ..engine import generator
from ..numerics import Grid, Groups, as_grid, from_index, identical_rows
from ..numerics.cells import ARITHMETICS, Cells, cells

SAMPLERS = ("sparse", "dense", "notebook")
ROWS_PER_BLOCK = 256  # of a dense draw, each block with its own generator


@dataclass(frozen=True, kw_only=True)
class Snowball:
    """What to draw: ``round(base + sigma * z)`` for `n_tokens` rows of i.i.d. standard normal z."""

    base: Float[np.ndarray, " dim"] = field(repr=False)  # weight units; float64 or any type that fits into float32
    n_tokens: int
    sigma: float  # weight units, before rounding
    grid: str = "bfloat16"
    arithmetic: str = "float32"  # "float32": sum in float32, then round (the notebooks'); "exact": round once

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be finite and >= 0 (weight units), got {self.sigma!r}")
        if self.n_tokens < 1:
            raise ValueError(f"n_tokens must be >= 1, got {self.n_tokens}")
        if self.base.ndim != 1 or not self.base.size:
            raise ValueError(f"base must be a vector of finite numbers, got shape {list(self.base.shape)}")
        if self.arithmetic not in ARITHMETICS:
            raise ValueError(f"unknown arithmetic {self.arithmetic!r}; choose one of {', '.join(ARITHMETICS)}")
        grid = as_grid(self.grid)
        if not max(self.base.max(), -self.base.min()) <= grid.max_value:  # NaN too
            beyond = np.flatnonzero(~(np.abs(self.base) <= grid.max_value))
            raise ValueError(
                f"base: component {beyond[0]} is {self.base[beyond[0]]:g}, beyond {grid.name}'s largest value "
                f"{grid.max_value:g}; choose a wider grid"
            )
        if self.arithmetic == "float32":
            object.__setattr__(self, "base", self.base.astype(np.float32))

    @property
    def dim(self) -> int:
        return self.base.size

    def cells(self) -> Cells:
        """Cells of every component within the reach of the noise."""
        return cells(self.base, self.sigma, self.n_tokens, self.grid, self.arithmetic)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The drawn rows, as differences from home in the columns that were drawn; every other column is at home."""

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

    def index(self, tokens: Any) -> Int64[np.ndarray, "k drawn"]:
        """Ordered indices of these tokens' rows in the drawn columns."""
        return self.codes[tokens] + self.home[self.columns]

    def words(self) -> UInt[np.ndarray, "n_tokens dim"]:
        """All rows as words of the grid; zeros are +0.0."""
        rows = np.tile(from_index(self.home, self.grid), (len(self.codes), 1))
        rows[:, self.columns] = from_index(self.index(slice(None)), self.grid)
        return rows


def draw(
    snowball: Snowball,
    *,
    seed: int = 0,
    point: int = 0,
    trial: int = 0,
    sampler: str = "sparse",
    cells: Cells | None = None,
) -> Cloud:
    """Draw one snowball; a function of its arguments alone.

    Parameters
    ----------
    sampler : "sparse" draws the cell of every component in the columns that noise can move, and falls back on "dense"
        where more than an eighth of the columns have over 127 cells; "dense" draws a normal deviate for every
        component. Their laws agree but for `Cloud.neglected`.
    cells : ``snowball.cells()``, where the caller has it already

    Raises
    ------
    ValueError
        Unknown sampler, or noise that overflows the grid.
    """
    if sampler == "sparse":
        return _draw_sparse(snowball, cells or snowball.cells(), seed, point, trial)
    if sampler == "dense":
        return _draw_dense(snowball, seed, point, trial)
    raise ValueError(f"unknown sampler {sampler!r}; draw knows sparse and dense (for notebook: perturb)")


def _draw_sparse(snowball: Snowball, cells: Cells, seed: int, point: int, trial: int) -> Cloud:
    from ..numerics._backends.drawing import draw_sparse

    if len(cells.wide) > snowball.dim / 8:
        return _draw_dense(snowball, seed, point, trial)
    codes = np.zeros((snowball.n_tokens, len(cells.columns)), np.int8)
    shift = cells.low - cells.home[cells.columns]
    key = seed & 0xFFFFFFFF, seed >> 32
    draw_sparse(cells.columns, shift, cells.starts, cells.thresholds, *key, point, trial, codes)
    columns, home = cells.columns, cells.home
    if len(cells.wide):  # these by their indices, as a dense draw, from a home of 0
        z = generator(seed, point, trial).standard_normal((snowball.n_tokens, len(cells.wide)))
        wide = _empty_index(snowball, z.shape)
        _perturbed(snowball, snowball.base[cells.wide], z, wide)
        codes = np.concatenate([codes.astype(wide.dtype), wide], axis=1)
        columns = np.concatenate([columns, cells.wide])
        home = home.copy()
        home[cells.wide] = 0
    return Cloud(grid=cells.grid, home=home, columns=columns, codes=codes, sampler="sparse", neglected=cells.neglected)


def _draw_dense(snowball: Snowball, seed: int, point: int, trial: int) -> Cloud:
    index = _empty_index(snowball, (snowball.n_tokens, snowball.dim))
    for block, start in enumerate(range(0, snowball.n_tokens, ROWS_PER_BLOCK)):
        rows = index[start : start + ROWS_PER_BLOCK]
        z = generator(seed, point, trial, block=block).standard_normal(rows.shape)
        _perturbed(snowball, snowball.base, z, rows)
    return _whole(snowball, index, "dense")


def perturb(snowball: Snowball, z: Float32[np.ndarray, "n_tokens dim"]) -> Cloud:
    """The snowball that these standard normal deviates make, as the notebooks do: ``base + z * sigma``, rounded.

    Raises
    ------
    ValueError
        A row overflows the grid, or z has the wrong shape.
    """
    if z.shape != (snowball.n_tokens, snowball.dim):
        raise ValueError(f"noise must be {snowball.n_tokens} x {snowball.dim}, got {list(z.shape)}")
    index = _empty_index(snowball, z.shape)
    _perturbed(snowball, snowball.base, z, index)
    return _whole(snowball, index, "notebook")


def _empty_index(snowball: Snowball, shape: tuple[int, ...]) -> np.ndarray:
    """Room for ordered indices: a grid's indices need as many bits as its words."""
    return np.empty(shape, f"i{as_grid(snowball.grid).bits // 8}")


def _whole(snowball: Snowball, index: np.ndarray, sampler: str) -> Cloud:
    return Cloud(
        grid=as_grid(snowball.grid),
        home=np.zeros(snowball.dim, np.int64),
        columns=np.arange(snowball.dim),
        codes=index,
        sampler=sampler,
        neglected=0.0,
    )


def _perturbed(snowball: Snowball, base: np.ndarray, z: np.ndarray, out: np.ndarray) -> None:
    """Put into `out` the ordered indices of ``round(base + z * sigma)`` in the snowball's arithmetic."""
    from ..numerics._backends.rounding import perturb_exact, perturb_float32

    grid = as_grid(snowball.grid)
    shape = grid.mantissa_bits, grid.min_exponent, grid.max_code
    if snowball.arithmetic == "float32":
        with np.errstate(over="ignore"):  # an infinite sigma shows as overflowing rows
            sigma = np.float32(snowball.sigma)
        overflows = perturb_float32(base.astype(np.float32), z.astype(np.float32), sigma, *shape, out)
    else:
        overflows = perturb_exact(base.astype(np.float64), z.astype(np.float64), snowball.sigma, *shape, out)
    if overflows:
        raise ValueError(
            f"sigma {snowball.sigma:g} overflows {grid.name} (largest value {grid.max_value:g}); "
            "choose a smaller sigma or a wider grid"
        )
