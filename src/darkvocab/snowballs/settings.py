"""Points: around which base, at which sigma, on which grid: what is drawn there, and what is expected there."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InvalidInput
from ..numerics import as_grid
from ..runs.randomness import check_seed
from .bases import DRAWN, Base, load_base
from .law import SnowballLaw


class Points:
    """A range of sigma around a base: the settings that sweeps, trials, questions and expectations share, checked."""

    def __init__(
        self,
        sigmas: Iterable[float],
        *,
        n_tokens: int = 2100,
        dim: int | None = None,
        base: str | Path | np.ndarray | Base = "qwen3-4b",
        redraw_base: bool = False,
        grid: str = "bfloat16",
        distribution: str = "gaussian",
        arithmetic: str = "float32",
        seed: int = 42,
    ) -> None:
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.n_tokens, self.grid = n_tokens, as_grid(grid).name
        self.distribution, self.arithmetic = distribution, arithmetic
        self.seed, self.redraw_base = check_seed(seed), redraw_base
        if not self.sigmas:
            raise InvalidInput("needs at least one sigma")
        for sigma in self.sigmas:
            if not (sigma >= 0 and math.isfinite(sigma)):
                raise InvalidInput(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")
        self._is_drawn = isinstance(base, str) and base in DRAWN
        if redraw_base and not self._is_drawn:
            raise InvalidInput(
                f"only a drawn base ({', '.join(DRAWN)}) can be redrawn at each sigma, not {str(base)!r}"
            )
        if dim is not None and dim < 1:
            raise InvalidInput(f"dim must be >= 1, got {dim}")
        self._spec, self._dim = base, dim
        self.base = self._base_at(0)
        self.dim = self.base.vector.size

    @property
    def _has_one_base(self) -> bool:
        return not self.redraw_base

    @cached_property
    def _base_ulp(self) -> float:
        """Median over the components of the rounded base, weight units."""
        return self._law(self.base.vector, 0.0).median_ulp

    def _law(self, vector: np.ndarray, sigma: float) -> SnowballLaw:
        return SnowballLaw(
            base=vector, sigma=sigma, grid=self.grid, arithmetic=self.arithmetic, distribution=self.distribution
        )

    def _base_at(self, point: int) -> Base:
        return load_base(self._spec, self._dim, seed=self.seed, point=point)


def parse_sigmas(text: str, spacing: str = "linear") -> list[float]:
    """Sigmas from ``START:STOP:COUNT`` (both ends included) or a comma-separated list, weight units.

    Raises
    ------
    InvalidInput
        Neither form, or a value that is not finite or is negative, or a log spacing from zero.

    Examples
    --------
    >>> parse_sigmas("1:2:3"), parse_sigmas("1e-9:1e-7:3", "log"), parse_sigmas("0,2e-9")
    ([1.0, 1.5, 2.0], [1e-09, 1e-08, 1e-07], [0.0, 2e-09])
    """
    if spacing not in ("linear", "log"):
        raise InvalidInput(f"unknown spacing {spacing!r}; choose linear or log")
    ends, colon, number = text.rpartition(":")
    try:
        sigmas = [float(part) for part in (ends.split(":") if colon else text.split(","))]
        count = int(number) if colon else len(sigmas)
    except ValueError:
        count = 0
    if not 1 <= count <= sys.maxsize // 16 or (colon and len(sigmas) != 2):  # beyond, numpy has no array for them
        raise InvalidInput(
            f"cannot read --sigma {text!r}; give START:STOP:COUNT or a comma list, such as 1e-9:5e-9:100"
        )
    for sigma in sigmas:
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise InvalidInput(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")
    if not colon:
        return sigmas
    if spacing == "log" and min(sigmas) == 0:
        raise InvalidInput(f"a log spacing needs sigmas above 0, got {text!r}")
    start, stop = sigmas
    space = np.geomspace if spacing == "log" else np.linspace
    return space(start, stop, count).tolist()
