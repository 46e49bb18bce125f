"""Trials (12.4b): many snowballs at one sigma, every statistic of each, and the distribution of their elements."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from ..landing import write_whole
from ..measures.census import Census
from ..numerics import index_values
from ..runs.randomness import SAMPLE, generator
from ..runs.records import RunFolder
from .columns import Degrees, Graph, Populations, Provenance, Steps, graph, populations, steps
from .law import Snowball
from .on_device import MeasuredCloud
from .run import Clouds
from .snowball import Cloud

if TYPE_CHECKING:
    import polars as pl

ELEMENTS = 1 << 20  # sampled of a run, for the distribution of elements
PER_TRIAL = 1 << 16  # of them from one snowball


@dataclass(frozen=True, kw_only=True)
class _Seed001Census:
    n_tokens: int
    n_unique: int
    n_black_holes: int
    n_singletons: int
    total_population: int
    black_hole_population: int
    largest_bh: int  # population of the largest black hole: 0 when there is none


@dataclass(frozen=True, kw_only=True)
class _Seed001Geometry:
    max_l_inf: float | None  # over epsilon; null without one
    mean_l_inf: float | None
    median_l_inf: float | None  # the lower of two middle values


@dataclass(frozen=True, kw_only=True)
class _Trial:
    trial_id: int  # counted through the run
    sigma: float
    hidden_dim: int
    epsilon: float | None  # the length that the user passed
    point: int
    trial: int  # counted at this sigma
    max_l_inf_weight: float | None  # weight units
    mean_l_inf_weight: float | None
    median_l_inf_weight: float | None


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Provenance, Degrees, Steps, _Trial, Graph, _Seed001Geometry, Populations, _Seed001Census):
    """One snowball. The first columns, to `trial_id`, are seed 001's, in its order; then come ours, in the reverse
    order of the bases above."""


class Trials(Clouds[TrialRecord]):
    """The settings of many trials, checked; iterate over it for their records, once or as often as you like.

    Parameters
    ----------
    sigmas : one, as in seed 001, or several; weight units
    settings : as `Clouds`; by default distances and the graph are over unique rows, as seed 001 has them
    """

    experiment = "trials"
    record = TrialRecord

    def __init__(self, sigmas: Iterable[float] | float, **settings: Any) -> None:
        sigmas = sigmas if isinstance(sigmas, Iterable) else [sigmas]
        super().__init__(sigmas, **{"trials": 1000, "measure": ("geometry", "topology"), **settings})

    def _measured(self, cloud: Cloud | MeasuredCloud, snowball: Snowball, point: int, trial: int) -> dict[str, Any]:
        census = Census(cloud.groups())
        among, topology = self._compared(cloud, census)
        spread = among.weight if among and "geometry" in self.measure else None
        scaled = spread if self.epsilon else None
        epsilon = self.epsilon or math.nan
        return {
            "n_tokens": census.n_tokens,
            "n_unique": census.n_unique,
            "n_black_holes": census.n_black_holes,
            "n_singletons": census.n_singletons,
            "total_population": census.n_tokens,
            "black_hole_population": census.black_hole_population,
            "largest_bh": census.largest_black_hole,
            **populations(census),
            "max_l_inf": scaled and scaled.max / epsilon,
            "mean_l_inf": scaled and scaled.mean / epsilon,
            "median_l_inf": scaled and scaled.lower_median / epsilon,
            **graph(topology),
            "trial_id": point * self.trials + trial,
            "sigma": self.sigmas[point],
            "hidden_dim": self.dim,
            "epsilon": self.epsilon,
            "point": point,
            "trial": trial,
            "max_l_inf_weight": spread and spread.max,
            "mean_l_inf_weight": spread and spread.mean,
            "median_l_inf_weight": spread and spread.lower_median,
            **steps(among if "steps" in self.measure else None, self.over if among else None),
        }

    def elements(self) -> pl.DataFrame:
        """A bounded sample of the elements of `row - base` of this run's own snowballs: point, sigma, value.

        About a million at most: of each sigma the same number, from its first trials (with the notebook sampler from
        the first sigma's alone), at places drawn from the run's seed.
        """
        import polars as pl

        points = [0] if self.sampler == "notebook" else range(len(self.sigmas))
        wanted = max(1, ELEMENTS // len(points))
        frames = []
        for point in points:
            count = min(self.trials, -(-wanted // PER_TRIAL))
            numbers = range(point * self.trials, point * self.trials + count)
            values = np.concatenate([self._sampled(*drawn, wanted // count) for drawn in self.clouds(numbers)])
            frames.append(pl.DataFrame({"point": point, "sigma": self.sigmas[point], "value": values}))
        return pl.concat(frames)

    def _sampled(self, number: int, snowball: Snowball, cloud: Cloud, count: int) -> Float32[np.ndarray, " count"]:
        """`row - base` in float32 at this many places, with replacement."""
        point, trial = divmod(number, self.trials)
        count *= self.n_tokens > 0
        words = generator(self.seed, point, trial, purpose=SAMPLE).bit_generator.random_raw(count)
        tokens, columns = np.divmod(words % np.uint64(max(self.n_tokens, 1) * self.dim), np.uint64(self.dim))
        columns = columns.astype(np.int64)
        values = index_values(cloud.elements(tokens.astype(np.int64), columns), self.grid, np.float32)
        return values - snowball.base[columns].astype(np.float32)

    def _finish(self, folder: RunFolder[TrialRecord]) -> None:
        buffer = io.BytesIO()
        self.elements().write_parquet(buffer, compression="zstd")
        write_whole(folder.path / "elements.parquet", buffer.getvalue())
        super()._finish(folder)
