"""Trials (12.4b): many snowballs at one sigma, every statistic of each, and their elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32

from ..measures.census import Census
from ..numerics import index_values
from ..runs.randomness import SAMPLE, generator
from .columns import Degrees, Graph, Populations, Provenance, Steps, compared, drawn, record
from .on_device import MeasuredCloud
from .run import clouds, records_of
from .settings import RunSettings
from .snowball import Cloud, Draw

if TYPE_CHECKING:
    import polars as pl

ELEMENTS_FILE = "elements.parquet"
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
    """One snowball: first seed 001's columns, to `trial_id`, then ours, from the last base up."""


@dataclass(frozen=True, repr=False)
class Trials(RunSettings[TrialRecord]):
    """Settings of many trials, checked; distances and graph are over unique rows, as in seed 001."""

    experiment: ClassVar[str] = "trials"
    row: ClassVar[type] = TrialRecord
    _: KW_ONLY
    trials: int = 1000
    measure: Any = ("geometry", "topology")

    def record(self, draw: Draw, cloud: Cloud | MeasuredCloud) -> TrialRecord:
        census = Census(cloud.groups())
        values = drawn(self, draw, cloud, census) | compared(self, cloud, census)
        for name in _Seed001Geometry.__dataclass_fields__:
            length = values[f"{name}_weight"] = values[name]
            values[name] = None if length is None or self.epsilon is None else length / self.epsilon
        values["total_population"] = census.n_tokens
        values["largest_bh"] = census.largest_black_hole
        values["trial_id"] = draw.point * self.trials + draw.trial
        return record(TrialRecord, values)

    def elements(self) -> pl.DataFrame:
        """Sample the elements of `row - base` of this run's own snowballs: point, sigma, value.

        About a million at most: of each sigma the same number, from its first trials (with the
        notebook sampler from the first sigma's alone), at places drawn from the run's seed.
        """
        import polars as pl

        points = [0] if self.sampler == "notebook" else range(len(self.sigmas))
        wanted = max(1, ELEMENTS // len(points))
        frames = []
        for point in points:
            count = min(self.trials, -(-wanted // PER_TRIAL))
            first = point * self.trials
            sampled = clouds(self, range(first, first + count))
            values = np.concatenate([self._sampled(draw, cloud, wanted // count) for draw, cloud in sampled])
            frames.append(pl.DataFrame({"point": point, "sigma": self.sigmas[point], "value": values}))
        return pl.concat(frames)

    def _sampled(self, draw: Draw, cloud: Cloud, count: int) -> Float32[np.ndarray, " count"]:
        """Return `row - base` in float32 at this many places, with replacement."""
        count *= self.n_tokens > 0
        random = generator(self.seed, draw.point, draw.trial, purpose=SAMPLE).bit_generator
        words = random.random_raw(count) % np.uint64(max(self.n_tokens, 1) * self.hidden_dim)
        tokens, columns = (part.astype(np.int64) for part in np.divmod(words, np.uint64(self.hidden_dim)))
        values = index_values(cloud.elements(tokens, columns), self.grid, np.float32)
        return values - draw.snowball.base[columns].astype(np.float32)

    def tables(self) -> Iterator[tuple[str, pl.DataFrame]]:
        yield ELEMENTS_FILE, self.elements()


def trials(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[TrialRecord]:
    """Draw many snowballs at one sigma (weight units), or at several, and yield every statistic of each.

    The `settings` are those of `Trials` and, to run it, of `Options`.

    Examples
    --------
    >>> sum(record.n_black_holes for record in trials(2e-9, trials=10, n_tokens=100))
    40
    """
    return records_of(Trials, sigmas, settings)
