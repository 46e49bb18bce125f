"""Experiments: a sweep over sigma (12.2a), many trials at one (12.4b), three questions (13.5a), and their records.

Columns of records: first those of the notebooks' files, in their order, then ours; null where not measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32

from ..errors import InvalidInput
from ..gpu.device import DistanceQuery, Queries
from ..measures.census import Census
from ..measures.geometry import Topology
from ..numerics import Touching, index_values, round_to, ulp
from ..numerics.cells import INDEPENDENT
from ..runs.folder import SCHEMA_VERSION
from ..runs.randomness import SAMPLE, generator
from ..runs.records import EXPECTED, Unsigned, record_types
from .bases import is_drawn
from .expect import Expect, along
from .on_device import MeasuredCloud
from .run import clouds, records_of
from .settings import MEASURES, Points, RunSettings
from .snowball import Draw, DrawnCloud

if TYPE_CHECKING:
    import polars as pl

ELEMENTS_FILE = "elements.parquet"
ELEMENTS = 1 << 20  # sampled from a run, for the distribution of elements
PER_TRIAL = 1 << 16  # sampled from one snowball
SHOWN = 13  # populations kept in a record of `questions`, as many as Qwen3-4B has black holes
WITHIN_STEPS = (Touching(1, "steps"), Touching(2, "steps"))
NEAR = Touching(1e-4, strict=True)  # seed 003's threshold
GRAPH = "n_components n_isolated largest_component_size largest_component_density global_density".split()
GRAPH += "n_edges mean_degree max_degree".split()

SweepRecord, TrialRecord, QuestionRecord = record_types(Path(__file__).with_suffix(".toml"), __name__)


def _record(
    settings: RunSettings, draw: Draw, cloud: DrawnCloud | MeasuredCloud, census: Census, measured: Mapping[str, Any]
) -> Any:
    """Return the record: from the census, the settings, the draw and `measured`, the values that it has columns for."""
    of_settings = "n_tokens", "hidden_dim", "epsilon", "grid", "distribution", "arithmetic"
    values = {
        **census.counts(),
        **{name: getattr(settings, name) for name in of_settings},
        "sigma": draw.snowball.sigma,
        "point": draw.point,
        "trial": draw.trial,
        "sigma_over_median_ulp": draw.snowball.sigma / settings.median_ulp(draw.snowball),
        "base": settings.base.name,
        "sampler": cloud.sampler,
        "seed": Unsigned(settings.seed),
        "n_active_columns": cloud.n_drawn,
        "neglected_probability": cloud.neglected,
        "schema_version": SCHEMA_VERSION,
        **measured,
    }
    return settings.row(**{field.name: values[field.name] for field in fields(settings.row)})


def _compared(settings: RunSettings, cloud: DrawnCloud | MeasuredCloud, census: Census) -> dict[str, Any]:
    """Measure populations, L-infinity and the graph; return them by column, None where not asked for."""
    among = cloud.geometry(census.groups, settings.over) if settings.l_inf_rows else None
    weight = among.weight if among and "geometry" in settings.measure else None
    steps = among.steps if among and "steps" in settings.measure else None
    topology = None
    if settings.touching:
        over = settings.graph_over
        vertices = among if among and settings.over == over else cloud.geometry(census.groups, over)
        topology = Topology(vertices.distances(settings.touching.unit), settings.touching, over=over)
    return {
        "smallest_bh": census.smallest_black_hole,
        "mean_bh_size": census.mean_population,
        "median_bh_size": census.lower_median_population,
        "top2_population": census.top2_population,
        "gini_coefficient": census.gini,
        "max_l_inf": weight and weight.max,
        "mean_l_inf": weight and weight.mean,
        "median_l_inf": weight and weight.lower_median,
        "max_l_inf_steps": steps and int(steps.max),
        "mean_l_inf_steps": steps and steps.mean,
        "median_l_inf_steps": steps and int(steps.lower_median),
        "l_inf_rows": settings.l_inf_rows,
        **{name: topology and getattr(topology, name) for name in GRAPH},
        "touching": topology and str(topology.touching),
        "topology_rows": topology and topology.over,
    }


@dataclass(frozen=True, repr=False)
class Sweep(RunSettings):
    """Settings of a sweep, checked; L-infinity is over black holes by default, as in seed 000."""

    experiment: ClassVar[str] = "sweep"
    row: ClassVar[type] = SweepRecord
    _: KW_ONLY
    measure: Any = ("geometry", "steps")
    over: str = "black_holes"

    def record(self, draw: Draw, cloud: DrawnCloud | MeasuredCloud) -> Any:
        census = Census(cloud.groups())
        values = _compared(self, cloud, census)
        values["unique_vectors"] = census.n_unique
        values["largest_bh"] = census.largest_group
        values["sigma_over_epsilon"] = draw.snowball.sigma / self.epsilon if self.epsilon else None
        largest = values["max_l_inf"]
        values["max_l_inf_over_epsilon"] = None if largest is None or self.epsilon is None else largest / self.epsilon
        return _record(self, draw, cloud, census, values)

    def expected(self) -> pl.DataFrame | None:
        """Return the expected census along this sweep, for a curve; None where no curve exists.

        There is none for noise without a closed form, for no tokens, for a base that is drawn anew at
        each sigma (`agreement` compares each with its own), or for one from torch's stream.
        """
        if self.distribution not in INDEPENDENT or not self.n_tokens or not self._has_one_base:
            return None
        shared = {field.name: getattr(self, field.name) for field in fields(Points)}
        return Expect(**shared | {"sigmas": along(self.sigmas)}).frame()

    def tables(self) -> Iterator[tuple[str, pl.DataFrame]]:
        expected = self.expected()
        if expected is not None:
            yield EXPECTED, expected


@dataclass(frozen=True, repr=False)
class Trials(RunSettings):
    """Settings of many trials, checked; distances and graph are over unique rows, as in seed 001."""

    experiment: ClassVar[str] = "trials"
    row: ClassVar[type] = TrialRecord
    _: KW_ONLY
    trials: int = 1000
    measure: Any = ("geometry", "topology")

    def record(self, draw: Draw, cloud: DrawnCloud | MeasuredCloud) -> Any:
        census = Census(cloud.groups())
        values = _compared(self, cloud, census)
        for name in ("max_l_inf", "mean_l_inf", "median_l_inf"):
            length = values[f"{name}_weight"] = values[name]
            values[name] = None if length is None or self.epsilon is None else length / self.epsilon
        values["total_population"] = census.n_tokens
        values["largest_bh"] = census.largest_black_hole
        values["trial_id"] = draw.point * self.trials + draw.trial
        return _record(self, draw, cloud, census, values)

    def elements(self) -> pl.DataFrame:
        """Sample elements of `row - base` from this run's snowballs, about a million at most: point, sigma, value.

        Every sigma gives the same number, from its first trials, at random places that the run's seed
        decides; with the notebook sampler, the first sigma gives all.
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

    def _sampled(self, draw: Draw, cloud: DrawnCloud, count: int) -> Float32[np.ndarray, " count"]:
        """Return `row - base` in float32 at `count` random places, drawn with replacement."""
        count *= self.n_tokens > 0
        random = generator(self.seed, draw.point, draw.trial, purpose=SAMPLE).bit_generator
        words = random.random_raw(count) % np.uint64(max(self.n_tokens, 1) * self.hidden_dim)
        tokens, columns = (part.astype(np.int64) for part in np.divmod(words, np.uint64(self.hidden_dim)))
        values = index_values(cloud.elements(tokens, columns), self.grid, np.float32)
        return values - draw.snowball.base[columns].astype(np.float32)

    def tables(self) -> Iterator[tuple[str, pl.DataFrame]]:
        yield ELEMENTS_FILE, self.elements()


@dataclass(frozen=True, repr=False)
class Questions(RunSettings):
    """Settings of the three questions, checked; by default those of seed 003."""

    experiment: ClassVar[str] = "questions"
    row: ClassVar[type] = QuestionRecord
    _: KW_ONLY
    n_tokens: int = 2221
    base: Any = "random-unit"
    redraw_base: bool | None = None  # type: ignore[assignment]  # None: if the base is drawn
    touching: Touching = NEAR  # in weight units
    measure: Any = field(default=MEASURES, init=False)
    over: str = field(default="tokens", init=False)
    epsilon: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.redraw_base is None:
            self._set(redraw_base=is_drawn(self.base))
        self._set(touching=self.touching or NEAR)
        super().__post_init__()

    def _check_measures(self) -> None:
        if self.touching.unit != "weight":
            raise InvalidInput("questions hold a threshold in weight units against the grid's steps; give one")

    @staticmethod
    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        touching = settings["touching"]
        return {
            "fixed_base": is_drawn(settings["base"]) and settings["redraw_base"] is False,
            "threshold": touching.threshold,
            "inclusive": not touching.strict,
        }

    def queries(self) -> Queries:
        return (
            DistanceQuery(over="tokens", unit="weight", spread=True, within=(self.touching,)),
            DistanceQuery(over="tokens", unit="steps", spread=True, within=WITHIN_STEPS),
        )

    def record(self, draw: Draw, cloud: DrawnCloud | MeasuredCloud) -> Any:
        census = Census(cloud.groups())
        among = cloud.geometry(census.groups, "tokens")
        n_pairs = among.in_weight.n_pairs
        n_near = among.in_weight.within(self.touching.threshold, strict=self.touching.strict)
        n_within = [among.in_steps.within(steps.threshold) for steps in WITHIN_STEPS]
        density, *in_steps = (count / n_pairs if n_pairs else float(self.n_tokens) for count in (n_near, *n_within))
        finest = ulp(round_to(draw.snowball.base, self.grid), self.grid)
        is_coarser = finest >= self.touching.threshold if self.touching.strict else finest > self.touching.threshold
        values = {
            "density": density,
            **{f"{name}_linf": getattr(among.weight, name) for name in ("max", "mean", "median")},
            **{f"{name}_linf_steps": getattr(among.steps, name) for name in ("mean", "median")},
            "demographics": json.dumps(sorted(census.groups.counts.tolist(), reverse=True)[:SHOWN]),
            "max_linf_steps": int(among.steps.max),
            "density_1_step": in_steps[0],
            "density_2_steps": in_steps[1],
            "touching": str(self.touching),
            "n_columns_coarser": int(is_coarser.sum()),
        }
        return _record(self, draw, cloud, census, values)


def sweep(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[Any]:
    """Draw snowballs over a range of sigma (weight units) and yield a `SweepRecord` of each, in order.

    The `settings` are those of `Sweep` and, to run it, of `Options`.

    Examples
    --------
    >>> for record in sweep([0.0, 2e-9], n_tokens=100):
    ...     print(record.n_black_holes, record.black_hole_population)
    1 100
    4 99
    """
    return records_of(Sweep, sigmas, settings)


def trials(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[Any]:
    """Draw many snowballs at one sigma (weight units) or several, and yield a `TrialRecord` of each.

    The `settings` are those of `Trials` and, to run it, of `Options`.

    Examples
    --------
    >>> sum(record.n_black_holes for record in trials(2e-9, trials=10, n_tokens=100))
    40
    """
    return records_of(Trials, sigmas, settings)


def questions(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[Any]:
    """Draw snowballs at each sigma (weight units) and yield a `QuestionRecord` of each: does rounding connect them?

    The `settings` are those of `Questions` and, to run it, of `Options`.

    Examples
    --------
    >>> [record.density for record in questions([0.0], n_tokens=100, dim=20)]
    [1.0]
    """
    return records_of(Questions, sigmas, settings)
