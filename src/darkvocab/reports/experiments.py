"""Tables of what experiments recorded: sweeps, trials, questions, trainings, comparisons with the notebooks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runs.records import scan_records

if TYPE_CHECKING:
    import polars as pl
from .console import _grid, density, largest, number, power, show


class Recorded(Protocol):
    """Records by columns: a frame, or a run folder as `darkvocab.records.scan_records` reads it."""

    def __getitem__(self, name: str, /) -> pl.Series: ...

    def __len__(self) -> int: ...


QWEN3_4B = "Qwen3-4B: 13 black holes, populations [814, 704, 306, 228, 11, ...]"
SWEEP = {
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "largest_bh": "largest group",
    "max_l_inf": "max L-inf among {rows}",
    "max_l_inf_over_epsilon": "max L-inf / epsilon",
    "max_l_inf_steps": "max L-inf in grid steps",
    "n_components": "components of the graph",
    "global_density": "density of the graph",
}


# The notebook's key metrics, in its order; L-infinity over epsilon there, in weight units where there is none.
TRIALS = {
    "n_unique": "unique rows",
    "n_black_holes": "black holes C",
    "n_singletons": "singletons",
    "black_hole_population": "population P",
    "largest_bh": "largest black hole",
    "gini_coefficient": "Gini coefficient",
    "max_l_inf": "max L-inf / epsilon, {rows}",
    "mean_l_inf": "mean L-inf / epsilon",
    "median_l_inf": "median L-inf / epsilon",
    "max_l_inf_weight": "max L-inf, {rows}",
    "mean_l_inf_weight": "mean L-inf",
    "max_l_inf_steps": "max L-inf in grid steps",
    "n_components": "components of the graph",
    "n_isolated": "isolated rows",
    "largest_component_density": "density of the largest component",
    "global_density": "density of the graph",
}


MOMENTS = ("mean", "std", "min", "max")


ANSWERS = (
    *("sigma", "density", "mean L-inf", "median L-inf", "black holes", "<= 1 step", "<= 2 steps"),
    "populations",
)


def _labelled(records: Recorded, labels: dict[str, str]) -> Iterator[tuple[str, pl.Series]]:
    """Label and values of each statistic that was measured."""
    rows = records["l_inf_rows"].drop_nulls()
    for column, label in labels.items():
        values = records[column]
        if values.null_count() < len(values):
            yield label.format(rows=str(rows[0]).replace("_", " ") if len(rows) else "rows"), values


def ranges(records: Recorded, labels: dict[str, str] = SWEEP) -> list[dict[str, Any]]:
    """Range of each statistic over the records, and its mean at the smallest and at the largest sigma."""
    sigma = records["sigma"]
    first, last = sigma == sigma.min(), sigma == sigma.max()
    return [
        {
            "statistic": label,
            "min": values.min(),
            "median": values.median(),
            "max": values.max(),
            "first": values.filter(first).mean(),
            "last": values.filter(last).mean(),
        }
        for label, values in _labelled(records, labels)
    ]


def moments(records: Recorded, labels: dict[str, str] = TRIALS) -> list[dict[str, Any]]:
    """Mean, sample standard deviation (null for one record) and range of each statistic over the records."""
    rows = []
    for label, values in _labelled(records, labels):
        low, high = values.min(), values.max()
        std = values.std() if low != high or len(values) < 2 else 0.0  # not what rounding makes of it
        rows.append({"statistic": label, "mean": values.mean(), "std": std, "min": low, "max": high})
    return rows


def by_sigma(records: Recorded) -> list[dict[str, Any]]:
    """The three answers at each sigma: means over its trials, and the populations of its first."""
    import polars as pl

    means = "density mean_linf median_linf n_black_holes density_1_step density_2_steps n_columns_coarser".split()
    columns = {name: records[name] for name in ("sigma", *means, "demographics")}
    made = pl.DataFrame(columns).group_by("sigma", maintain_order=True)
    return made.agg(*(pl.col(name).mean() for name in means), pl.col("demographics").first()).to_dicts()


def _head(records: Recorded) -> str:
    sigma = records["sigma"]
    points = sigma.n_unique()
    trials = len(records) // points
    first, last = float(sigma.min()), float(sigma.max())  # type: ignore[arg-type]
    between = f"{points:,} sigma from {first:g} to {last:g}" if points > 1 else f"sigma {first:.7g}"
    return f"{len(records):,} records: {between}, {trials:,} trial{'s' * (trials > 1)} each"


def print_ranges(records: Recorded, to: Console, labels: dict[str, str] = SWEEP) -> None:
    """The notebook's summary of a sweep: how many records, and the range of each statistic."""
    sigma = records["sigma"]
    to.print(_head(records))
    columns = {"min": "min", "median": "median", "max": "max"}
    if sigma.min() < sigma.max():  # type: ignore[operator]
        ends = sigma.to_numpy()
        columns |= {"first": f"at {ends.min():.4g}", "last": f"at {ends.max():.4g}"}
    table = _grid(columns.values())
    for row in ranges(records, labels):
        table.add_row(row["statistic"], *(number(row[key]) for key in columns))
    show(table, to)


def print_trials(records: Recorded, to: Console) -> None:
    """The notebook's summary of trials at one sigma: mean and spread of each statistic; of a sweep its ranges."""
    if records["sigma"].n_unique() > 1:
        print_ranges(records, to, TRIALS)
        return
    to.print(_head(records))
    table = _grid(MOMENTS)
    for cells in moment_cells(records):
        table.add_row(*cells)
    show(table, to)


def moment_cells(records: Recorded) -> list[list[str]]:
    """`moments` for people: the statistic, then `MOMENTS`."""
    return [
        [row["statistic"], *("" if row[key] is None else number(row[key]) for key in MOMENTS)]
        for row in moments(records)
    ]


def print_questions(records: Recorded, to: Console) -> None:
    """The notebook's table of the three answers, its target, densities in grid steps, and what the threshold forces."""
    to.print(_head(records))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ANSWERS[:-1]:
        table.add_column(heading, justify="right")
    table.add_column(ANSWERS[-1])
    for cells in answer_cells(records):
        table.add_row(*cells)
    show(table, to)
    to.print(f"\n{QWEN3_4B}")
    for sentence in remarks(records):
        to.print(sentence, soft_wrap=not to.is_terminal)


def answer_cells(records: Recorded) -> list[list[str]]:
    """`by_sigma` for people, in the columns of `ANSWERS`."""
    return [
        [
            power(row["sigma"]),
            density(row["density"]),
            power(row["mean_linf"]),
            power(row["median_linf"]),
            number(row["n_black_holes"]),
            density(row["density_1_step"]),
            density(row["density_2_steps"]),
            largest(row["demographics"]),
        ]
        for row in by_sigma(records)
    ]


def remarks(records: Recorded) -> list[str]:
    """What nobody should read into the answers of 13.5a."""
    touching, dim = records["touching"][0], records["hidden_dim"][0]
    coarser = records["n_columns_coarser"]
    least, most = int(coarser.min()), int(coarser.max())  # type: ignore[arg-type]
    if not most:
        return []
    how_many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    share = (
        f"{least / dim:.0%}"
        if f"{least / dim:.0%}" == f"{most / dim:.0%}"
        else f"{least / dim:.0%} to {most / dim:.0%}"
    )
    return [
        f"The threshold ({touching}) lies below the grid's own step in {how_many} of {dim:,} columns ({share}): two "
        "tokens that differ there at all, by one step, count as apart. Once tokens move in those columns that alone "
        "drives the density to 0; the densities at 1 and 2 steps ask the grid itself."
    ]


def summarised(experiment: str, records: Recorded) -> list[dict[str, Any]]:
    """What `--json` says of all the records."""
    if experiment == "questions":
        return by_sigma(records)
    if experiment == "trials" and records["sigma"].n_unique() == 1:
        return moments(records)
    return ranges(records, TRIALS if experiment == "trials" else SWEEP)


def experiment_json(experiment: str, made: pl.DataFrame | Path) -> Iterator[str]:
    """`{"summary": [...], "records": [...]}` piece by piece, from a run folder without holding its records."""
    import polars as pl
    import polars.selectors as cs

    records: Any = made if isinstance(made, pl.DataFrame) else scan_records(made)
    frames = [made] if isinstance(made, pl.DataFrame) else records.frames()
    yield '{"summary": ' + json.dumps(_finite(summarised(experiment, records)), allow_nan=False) + ', "records": ['
    comma = ""
    for frame in frames:
        for row in frame.with_columns(pl.when(cs.float().is_finite()).then(cs.float())).iter_rows(named=True):
            yield comma + json.dumps(row, allow_nan=False)
            comma = ", "
    yield "]}\n"


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON knows no infinity: null."""
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]


PRINTED: dict[str, Callable[[Recorded, Console], None]] = {
    "sweep": print_ranges,
    "trials": print_trials,
    "questions": print_questions,
}


def print_experiment(experiment: str, made: pl.DataFrame | Path, to: Console) -> None:
    """The table of an experiment, from its frame or its run folder."""
    import polars as pl

    PRINTED[experiment](made if isinstance(made, pl.DataFrame) else scan_records(made), to)


def print_comparison(rows: Sequence[dict[str, Any]], to: Console) -> None:
    """Published figures beside ours, and below the table what stands in the way of checking one."""
    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading, justify in (("figure", "left"), ("published", "right"), ("here", "right"), ("agrees?", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        table.add_row(*(Text(str(row[key])) for key in ("figure", "published", "here")), Text(row["agrees"] + mark))
    show(table, to)
    for place, note in enumerate(notes, 1):
        to.print(f"[{place}] {note}")
