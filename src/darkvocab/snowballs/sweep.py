"""Sweep (12.2a): snowballs over a range of sigma, and the census of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..measures.census import Census
from ..numerics.distributions import INDEPENDENT
from ..runs.records import EXPECTED
from .columns import Degrees, Graph, Populations, Provenance, Steps, compared, drawn, record
from .expect import Expect, along
from .on_device import MeasuredCloud
from .run import records_of
from .settings import Points, RunSettings
from .snowball import Cloud, Draw

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class _Sweep:
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
    max_l_inf_over_epsilon: float | None  # the last of seed 000's fourteen columns
    point: int
    trial: int


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Provenance, Degrees, Graph, Steps, Populations, _Sweep):
    """One snowball: first seed 000's fourteen columns, then ours, from the last base up."""


@dataclass(frozen=True, repr=False)
class Sweep(RunSettings[SweepRecord]):
    """Settings of a sweep, checked; L-infinity is over black holes by default, as in seed 000."""

    experiment: ClassVar[str] = "sweep"
    row: ClassVar[type] = SweepRecord
    _: KW_ONLY
    measure: Any = ("geometry", "steps")
    over: str = "black_holes"

    def record(self, draw: Draw, cloud: Cloud | MeasuredCloud) -> SweepRecord:
        census = Census(cloud.groups())
        values = drawn(self, draw, cloud, census) | compared(self, cloud, census)
        sigma, epsilon, largest = draw.snowball.sigma, self.epsilon, values["max_l_inf"]
        values["unique_vectors"] = census.n_unique
        values["largest_bh"] = census.largest_group
        values["sigma_over_epsilon"] = sigma / epsilon if epsilon else None
        values["max_l_inf_over_epsilon"] = None if largest is None or epsilon is None else largest / epsilon
        return record(SweepRecord, values)

    def expected(self) -> pl.DataFrame | None:
        """Return the expected census along this sweep, for a curve; None where it has none.

        Noise without a closed form has none, and no tokens; a base that is drawn anew at each sigma
        makes another curve at each (`agreement` takes each at its own), one from torch's
        stream is not known here.
        """
        if self.distribution not in INDEPENDENT or not self.n_tokens or not self._has_one_base:
            return None
        shared = {field.name: getattr(self, field.name) for field in fields(Points)}
        return Expect(**shared | {"sigmas": along(self.sigmas)}).frame()

    def tables(self) -> Iterator[tuple[str, pl.DataFrame]]:
        expected = self.expected()
        if expected is not None:
            yield EXPECTED, expected


def sweep(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[SweepRecord]:
    """Draw snowballs over a range of sigma (weight units) and yield a record of each, in order, as they come.

    The `settings` are those of `Sweep` and, to run it, of `Options`.

    Examples
    --------
    >>> for record in sweep([0.0, 2e-9], n_tokens=100):
    ...     print(record.n_black_holes, record.black_hole_population)
    1 100
    4 99
    """
    return records_of(Sweep, sigmas, settings)
