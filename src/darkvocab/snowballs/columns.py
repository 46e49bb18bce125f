"""Columns that records of snowballs share, and their values; null where not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..measures.census import Census
from ..measures.geometry import Geometry
from ..measures.topology import Topology
from ..runs.folder import SCHEMA_VERSION
from ..runs.records import Unsigned
from .on_device import MeasuredCloud
from .settings import RunSettings
from .snowball import Cloud, Draw


def counts(census: Census) -> dict[str, Any]:
    """Values of every record's columns of its census, as trials and questions name them."""
    return {
        "n_unique": census.n_unique,
        "n_black_holes": census.n_black_holes,
        "black_hole_population": census.black_hole_population,
        "n_singletons": census.n_singletons,
    }


@dataclass(frozen=True, kw_only=True)
class Populations:
    """Statistics of populations that only seed 001 has; zeros without black holes."""

    smallest_bh: int
    mean_bh_size: float
    median_bh_size: int  # the lower of two middle values
    top2_population: int
    gini_coefficient: float


def populations(census: Census) -> dict[str, Any]:
    """Values of the columns of `Populations`."""
    return {
        "smallest_bh": census.smallest_black_hole,
        "mean_bh_size": census.mean_population,
        "median_bh_size": census.lower_median_population,
        "top2_population": census.top2_population,
        "gini_coefficient": census.gini,
    }


def l_inf(among: Geometry | None) -> tuple[float | None, float | None, float | None]:
    """Largest, mean and lower median L-infinity, weight units; None where not measured."""
    if among is None:
        return None, None, None
    return among.weight.max, among.weight.mean, among.weight.lower_median


@dataclass(frozen=True, kw_only=True)
class Steps:
    """L-infinity in grid steps, over the rows that `l_inf_rows` names."""

    max_l_inf_steps: int | None
    mean_l_inf_steps: float | None
    median_l_inf_steps: int | None  # the lower of two middle values
    l_inf_rows: str | None


def steps(among: Geometry | None) -> dict[str, Any]:
    """Values of the columns of `Steps` but for the last."""
    spread = among.steps if among else None
    return {
        "max_l_inf_steps": int(spread.max) if spread else None,
        "mean_l_inf_steps": spread.mean if spread else None,
        "median_l_inf_steps": int(spread.lower_median) if spread else None,
    }


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


def graph(topology: Topology | None) -> dict[str, Any]:
    """Values of the columns of `Graph` and `Degrees`."""
    if topology is None:
        return dict.fromkeys((*Graph.__dataclass_fields__, *Degrees.__dataclass_fields__))
    measured = (*Graph.__dataclass_fields__, "n_edges", "mean_degree", "max_degree")
    return {
        **{name: getattr(topology, name) for name in measured},
        "touching": str(topology.touching),
        "topology_rows": topology.over,
    }


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


def provenance(settings: RunSettings, draw: Draw, cloud: Cloud | MeasuredCloud) -> dict[str, Any]:
    """Values of the columns of `Provenance`."""
    return {
        "sigma_over_median_ulp": draw.snowball.sigma / settings.median_ulp(draw.snowball),
        "base": settings.base.name,
        "grid": settings.grid,
        "distribution": settings.distribution,
        "arithmetic": settings.arithmetic,
        "sampler": cloud.sampler,
        "seed": Unsigned(settings.seed),
        "n_active_columns": cloud.n_drawn,
        "neglected_probability": cloud.neglected,
        "schema_version": SCHEMA_VERSION,
    }
