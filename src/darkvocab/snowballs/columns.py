"""Columns that records of snowballs share, and their values; null where not measured."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..measures.census import Census
from ..measures.geometry import Topology
from ..runs.folder import SCHEMA_VERSION
from ..runs.records import Unsigned
from .on_device import MeasuredCloud
from .settings import Row, RunSettings
from .snowball import Cloud, Draw


@dataclass(frozen=True, kw_only=True)
class Populations:
    """Statistics of populations that only seed 001 has; zeros without black holes."""

    smallest_bh: int
    mean_bh_size: float
    median_bh_size: int  # the lower of two middle values
    top2_population: int
    gini_coefficient: float


@dataclass(frozen=True, kw_only=True)
class Steps:
    """L-infinity in grid steps, over the rows that `l_inf_rows` names."""

    max_l_inf_steps: int | None
    mean_l_inf_steps: float | None
    median_l_inf_steps: int | None  # the lower of two middle values
    l_inf_rows: str | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The graph of touching rows: seed 001's columns."""

    n_components: int | None
    n_isolated: int | None
    largest_component_size: int | None
    largest_component_density: float | None
    global_density: float | None


@dataclass(frozen=True, kw_only=True)
class Degrees:
    """Further columns of the graph of touching rows."""

    n_edges: int | None
    mean_degree: float | None
    max_degree: int | None
    touching: str | None  # when two rows touch: inequality, threshold, unit
    topology_rows: str | None  # which rows are the vertices


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of a record: the last columns of every record of snowballs."""

    sigma_over_median_ulp: float  # median over the components of the rounded base
    base: str
    grid: str
    distribution: str
    arithmetic: str
    sampler: str  # that drew these rows; "sparse" falls back on "dense"
    seed: Unsigned
    n_active_columns: int  # columns that were drawn
    neglected_probability: float  # bound on the chance that the sampler's neglect of far tails shows in this record
    schema_version: int


def drawn(settings: RunSettings, draw: Draw, cloud: Cloud | MeasuredCloud, census: Census) -> dict[str, Any]:
    """Return the census and what was drawn by the names of their columns, more than any record has."""
    of_settings = "n_tokens", "hidden_dim", "epsilon", "grid", "distribution", "arithmetic"
    return {
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
    }


def compared(settings: RunSettings, cloud: Cloud | MeasuredCloud, census: Census) -> dict[str, Any]:
    """Return populations, L-infinity and the graph by the names of their columns; None where not measured."""
    among = cloud.geometry(census.groups, settings.over) if settings.l_inf_rows else None
    weight = among.weight if among and "geometry" in settings.measure else None
    steps = among.steps if among and "steps" in settings.measure else None
    topology = None
    if settings.touching:
        over = settings.graph_over
        vertices = among if among and settings.over == over else cloud.geometry(census.groups, over)
        topology = Topology(vertices.distances(settings.touching.unit), settings.touching, over=over)
    of_graph = (*Graph.__dataclass_fields__, "n_edges", "mean_degree", "max_degree")
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
        **{name: topology and getattr(topology, name) for name in of_graph},
        "touching": topology and str(topology.touching),
        "topology_rows": topology and topology.over,
    }


def record(kind: type[Row], values: Mapping[str, Any]) -> Row:
    """Return the record with those of the values that it has columns for."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]
