"""Expect: the census of snowballs over a range of sigma, in closed form, without drawing any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics.distributions import independent
from ..numerics.grouping import n_cores
from ..runs.folder import SCHEMA_VERSION
from ..runs.records import frame_of
from .settings import Points
from .theory import Occupancy

if TYPE_CHECKING:
    import polars as pl

MOST_POINTS, FEWEST_POINTS = 80, 40  # of a curve
COUNTED = "n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The census of one snowball before it is drawn: expected values and standard deviations, in a sweep's words."""

    sigma: float  # weight units, before rounding
    sigma_over_median_ulp: float
    unique_vectors: float
    unique_vectors_std: float
    n_black_holes: float
    n_black_holes_std: float
    black_hole_population: float
    black_hole_population_std: float
    n_singletons: float
    n_singletons_std: float
    coincident_pairs: float  # pairs of tokens with equal rows
    coincident_pairs_std: float
    largest_bh_low: float  # between these two lies the expected population of the largest group
    largest_bh_high: float
    n_active_columns: int  # that noise can move
    n_tokens: int
    hidden_dim: int
    base: str
    grid: str
    distribution: str
    arithmetic: str
    schema_version: int


class Expect(Points):
    """The settings of an expectation, checked as a sweep's are; iterate over it for its points.

    `distribution` is gaussian, laplace or uniform; `n_tokens` from 1 to 1e15 at the same cost.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        Occupancy.check(self.n_tokens)
        independent(self.distribution)
        for sigma in (min(self.sigmas), max(self.sigmas)):
            self.law(self.base.vector, sigma).ranges(self.n_tokens)

    def __len__(self) -> int:
        return len(self.sigmas)

    def __iter__(self) -> Iterator[Expected]:
        with ThreadPoolExecutor(n_cores()) as pool:
            yield from (pool.map if len(self) > 1 else map)(self._at, range(len(self)), self.sigmas)

    def _at(self, point: int, sigma: float) -> Expected:
        law = self.law(self.base_at(point).vector, sigma)
        ulp = self.median_ulp(law)
        occupancy = law.occupancy(self.n_tokens)
        low, high = occupancy.largest_group
        moments = {"unique_vectors": occupancy.n_unique} | {name: getattr(occupancy, name) for name in COUNTED}
        return Expected(
            sigma=sigma,
            sigma_over_median_ulp=sigma / ulp,
            **{name: moment.mean for name, moment in moments.items()},
            **{f"{name}_std": moment.std for name, moment in moments.items()},
            largest_bh_low=low,
            largest_bh_high=high,
            n_active_columns=occupancy.cells.n_active,
            base=self.base.name,
            **{name: getattr(self, name) for name in ("n_tokens", "hidden_dim", "grid", "distribution", "arithmetic")},
            schema_version=SCHEMA_VERSION,
        )

    def frame(self) -> pl.DataFrame:
        return frame_of(Expected, list(self))


def expect(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[Expected]:
    """Expect the census of snowballs, at each sigma (weight units): exact, with standard deviations.

    The `settings` are those of `Expect`.

    Examples
    --------
    >>> for point in expect([0.0, 2e-9], n_tokens=100):
    ...     print(round(point.n_black_holes, 2), round(point.black_hole_population, 2))
    1.0 100.0
    4.2 99.01
    """
    return iter(Expect(sigmas, **settings))


def along(sigmas: Iterable[float]) -> list[float]:
    """Return where to draw a curve over these sigma: at them or at 80 of them; of fewer than 40, between too.

    Examples
    --------
    >>> len(along(range(1, 1001))), along([0.0, 40.0])[:3]
    (80, [0.0, 1.0, 2.0])
    """
    given = np.unique(np.fromiter(sigmas, float))
    if len(given) > MOST_POINTS:
        return given[np.linspace(0, len(given) - 1, MOST_POINTS).round().astype(int)].tolist()
    if 1 < len(given) < FEWEST_POINTS:
        space = np.geomspace if 0 < 30 * given[0] < given[-1] else np.linspace
        pieces = -(-FEWEST_POINTS // (len(given) - 1))
        given = np.unique([space(low, high, pieces + 1) for low, high in pairwise(given)])
    return given.tolist()
