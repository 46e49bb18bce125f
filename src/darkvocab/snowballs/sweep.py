"""Sweep (12.2a): snowballs over a range of sigma, and the census of each."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..landing import write_whole
from ..measures.census import Census
from ..numerics.distributions import INDEPENDENT
from ..runs.records import EXPECTED, RunFolder
from .columns import Degrees, Graph, Populations, Provenance, Steps, graph, populations, steps
from .expect import Expect, along
from .law import Snowball
from .on_device import MeasuredCloud
from .run import RUNNING, Clouds
from .snowball import Cloud

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class _Trial:
    point: int
    trial: int


@dataclass(frozen=True, kw_only=True)
class _Seed000:
    sigma: float
    unique_vectors: int
    n_black_holes: int
    black_hole_population: int
    n_singletons: int
    largest_bh: int  # population of the largest group: 1 when there is no black hole
    max_l_inf: float | None  # weight units; 0 with fewer than two rows
    mean_l_inf: float | None
    median_l_inf: float | None  # the lower of two middle values
    n_tokens: int
    hidden_dim: int
    epsilon: float | None  # the length that the user passed
    sigma_over_epsilon: float | None
    max_l_inf_over_epsilon: float | None


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Provenance, Degrees, Graph, Steps, Populations, _Trial, _Seed000):
    """One snowball. The first fourteen columns are seed 000's, in its order; then come ours, in the reverse order of
    the bases above."""


class Sweep(Clouds[SweepRecord]):
    """The settings of a sweep, checked; iterate over it for its records, once or as often as you like.

    Parameters
    ----------
    sigmas : standard deviations of the noise, weight units
    settings : as `Clouds`; by default L-infinity is over black holes, in weight units and in steps, as seed 000 has it
    """

    experiment = "sweep"
    record = SweepRecord

    def __init__(self, sigmas: Iterable[float], **settings: Any) -> None:
        super().__init__(sigmas, **{"measure": ("geometry", "steps"), "over": "black_holes", **settings})

    def _measured(self, cloud: Cloud | MeasuredCloud, snowball: Snowball, point: int, trial: int) -> dict[str, Any]:
        census = Census(cloud.groups())
        among, topology = self._compared(cloud, census)
        spread = among.weight if among and "geometry" in self.measure else None
        sigma, epsilon = self.sigmas[point], self.epsilon
        return {
            "sigma": sigma,
            "unique_vectors": census.n_unique,
            "n_black_holes": census.n_black_holes,
            "black_hole_population": census.black_hole_population,
            "n_singletons": census.n_singletons,
            "largest_bh": census.largest_group,
            "max_l_inf": spread and spread.max,
            "mean_l_inf": spread and spread.mean,
            "median_l_inf": spread and spread.lower_median,
            "n_tokens": self.n_tokens,
            "hidden_dim": self.dim,
            "epsilon": epsilon,
            "sigma_over_epsilon": sigma / epsilon if epsilon else None,
            "max_l_inf_over_epsilon": spread.max / epsilon if epsilon and spread else None,
            "point": point,
            "trial": trial,
            **populations(census),
            **steps(among if "steps" in self.measure else None, self.over if among else None),
            **graph(topology),
        }

    def expected(self) -> pl.DataFrame | None:
        """The expected census along this sweep, for a curve; None where it has none.

        Noise without a closed form has none, and no tokens; a base that is drawn anew at each sigma makes another curve
        at each (`darkvocab.agreement` takes each at its own), one from torch's stream is not known here.
        """
        if self.distribution not in INDEPENDENT or not self.n_tokens or not self._has_one_base:
            return None
        settings = {"grid": self.grid, "distribution": self.distribution, "arithmetic": self.arithmetic}
        return Expect(along(self.sigmas), n_tokens=self.n_tokens, base=self.base, seed=self.seed, **settings).frame()

    def _finish(self, folder: RunFolder[SweepRecord]) -> None:
        expected = self.expected()
        if expected is not None:
            buffer = io.BytesIO()
            expected.write_parquet(buffer, compression="zstd")
            write_whole(folder.path / EXPECTED, buffer.getvalue())
        super()._finish(folder)


def sweep(sigmas: Iterable[float], **settings: Any) -> Iterator[SweepRecord]:
    """Snowballs over a range of sigma: records in order, as they come.

    Parameters
    ----------
    sigmas : standard deviations of the noise, weight units
    settings : of `Sweep` (trials, n_tokens, dim, base, redraw_base, grid, distribution, arithmetic, sampler, measure,
        over, touching, epsilon, seed) and of `Sweep.records` (engine, workers, device, out, resume, progress)

    Examples
    --------
    >>> for record in sweep([0.0, 2e-9], n_tokens=100):
    ...     print(record.n_black_holes, record.black_hole_population)
    1 100
    4 99
    """
    running = {name: settings.pop(name) for name in RUNNING if name in settings}
    return Sweep(sigmas, **settings).records(**running)
