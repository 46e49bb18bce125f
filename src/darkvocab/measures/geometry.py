"""Geometry: how far apart rows lie, as L-infinity distances of all their pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from ..numerics import Grid, Spectrum, chebyshev_spectrum


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Distances of all unordered pairs of rows in both units; the caller knows, and says, which rows they are."""

    weight: Spectrum  # max over columns of |difference|, weight units, in float32
    steps: Spectrum  # max over columns of |difference of ordered indices|


def geometry(index: Integer[np.ndarray, "n dim"], grid: str | Grid) -> Geometry:
    """Geometry of rows given by ordered indices on a grid. Columns in which no row differs may be left out.

    Examples
    --------
    >>> g = geometry(np.array([[16256, 5], [16257, 5]]), "bfloat16")  # 1.0 and its successor
    >>> g.weight.max, g.steps.max
    (0.0078125, 1.0)
    """
    return Geometry(
        weight=chebyshev_spectrum(index, grid, unit="weight"), steps=chebyshev_spectrum(index, grid, unit="steps")
    )
