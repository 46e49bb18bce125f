"""Hypotheses of how an observed census came about, and partitions drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from ...numerics import boundaries, round_to, ulp
from ..law import Snowball, SnowballLaw
from ..snowball import draw
from ..theory import Partition


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A law of snowballs, but for sigma."""

    base: Float64[np.ndarray, " dim"] = field(repr=False)
    grid: str = "bfloat16"
    arithmetic: str = "float32"
    distribution: str = "gaussian"
    offset: float = 0.0  # of every component, in the grid's spacing there

    @cached_property
    def centre(self) -> Float64[np.ndarray, " dim"]:
        """The base, moved by the offset."""
        if not self.offset:
            return self.base
        return self.base + self.offset * ulp(round_to(self.base, self.grid), self.grid)

    def law(self, sigma: float) -> SnowballLaw:
        """Return the law with this sigma."""
        return SnowballLaw(
            base=self.centre, sigma=sigma, grid=self.grid, arithmetic=self.arithmetic, distribution=self.distribution
        )

    def range(self, n_tokens: int) -> tuple[float, float]:
        """Return sigmas between nearly all tokens at home and nearly all alone, as far as the grid can tell."""
        rounded = round_to(self.centre, self.grid).astype(np.float64)
        lower, upper = boundaries(rounded, self.grid)
        near = np.minimum(np.abs(self.centre - lower), np.abs(upper - self.centre))
        spacing = ulp(rounded, self.grid)
        resolved = np.maximum(near, spacing / 65536)[spacing > 0]
        low = float(resolved.min()) / 10
        high = low
        while high < 64 * spacing.max():
            high *= 2
            try:
                if self.law(high).occupancy(n_tokens).log_coincident_pairs < -3:
                    break
            except ValueError:  # overflows
                return low, high / 2
        return low, high


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Point where a likelihood is largest. `sigma` None: it has no largest value, all tokens share a row or none do."""

    hypothesis: Hypothesis
    sigma: float | None
    n_tokens: int
    log_likelihood: float
    kind: str  # "composite" or "partition"
    range: tuple[float, float]  # of sigma, that was looked at
    theta: Float64[np.ndarray, " parameters"] = field(repr=False)  # log sigma, and what is free beside it


def drawn_partitions(
    snowball: Snowball, trials: range, *, seed: int, with_singletons: bool = True
) -> Iterator[Partition]:
    """Draw these trials of a snowball and yield the partition of each, with its singletons or as if not known."""
    cells = snowball.single_cells() if snowball.has_cells else None
    for trial in trials:
        counts = draw(snowball, seed=seed, trial=trial, cells=cells).groups().counts
        n_singletons = int((counts == 1).sum()) if with_singletons else None
        yield Partition(np.sort(counts[counts > 1])[::-1], n_singletons)
