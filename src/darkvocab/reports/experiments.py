"""Report sweeps, trials and questions as tables and JSON, and comparisons with the notebooks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from ..runs.records import Records
from ..text import finite
from .console import frames_json, number
from .document import WORDS, lines_of, print_text, printer, rows_of

QWEN3_4B = "Qwen3-4B: 13 black holes, populations [814, 704, 306, 228, 11, ...]"
Recorded = pl.DataFrame | Records  # records by column: a frame, or those of a run folder


def _labelled(records: Recorded, experiment: str) -> Iterator[tuple[str, pl.Series]]:
    """Yield label and values of each statistic that was measured."""
    known = records["l_inf_rows"].drop_nulls()
    rows = str(known[0]).replace("_", " ") if len(known) else "rows"
    for column, label in WORDS[experiment].items():
        values = records[column]
        if values.null_count() < len(values):
            yield label.format(rows=rows), values


def ranges(records: Recorded, experiment: str = "sweep") -> list[dict[str, Any]]:
    """Return the range of each statistic, and its means at the smallest and at the largest sigma."""
    sigma = records["sigma"]
    ends = {"first": sigma == sigma.min(), "last": sigma == sigma.max()}
    return [
        {"statistic": label, "min": values.min(), "median": values.median(), "max": values.max()}
        | {end: values.filter(at).mean() for end, at in ends.items()}
        for label, values in _labelled(records, experiment)
    ]


def moments(records: Recorded) -> list[dict[str, Any]]:
    """Return mean, sample standard deviation (null for one record) and range of each statistic."""
    return [
        {"statistic": label, "mean": v.mean(), "std": deviation(v), "min": v.min(), "max": v.max()}
        for label, v in _labelled(records, "trials")
    ]


def deviation(values: pl.Series) -> float | None:
    """Return the sample standard deviation: None for fewer than two values, exactly 0 for equal ones."""
    if len(values) > 1 and values.min() == values.max():
        return 0.0
    return values.std()  # type: ignore[return-value]


def by_sigma(records: Recorded) -> list[dict[str, Any]]:
    """Return the three answers at each sigma: means over its trials, and the populations of the first trial."""
    means = "density mean_linf median_linf n_black_holes density_1_step density_2_steps n_columns_coarser".split()
    columns = {name: records[name] for name in ("sigma", *means, "demographics")}
    groups = pl.DataFrame(columns).group_by("sigma", maintain_order=True)
    return groups.agg(*(pl.col(name).mean() for name in means), pl.col("demographics").first()).to_dicts()


def remarks(records: Recorded) -> list[str]:
    """Return remarks on what the answers of 13.5a do not show."""
    dim = records["hidden_dim"][0]
    coarser = records["n_columns_coarser"]
    ends = [int(coarser.min()), int(coarser.max())]  # type: ignore[arg-type]
    return lines_of("coarser", touching=records["touching"][0], dim=dim, ends=ends, shares=[n / dim for n in ends])


def summarised(experiment: str, records: Recorded) -> list[dict[str, Any]]:
    """Return the summary of all records, for `--json`."""
    if experiment == "questions":
        return by_sigma(records)
    if experiment == "trials" and records["sigma"].n_unique() == 1:
        return moments(records)
    return ranges(records, experiment)


def summary_cells(experiment: str, records: Recorded) -> list[list[str]]:
    """Return the cells of a table of `summarised`."""
    rows = summarised(experiment, records)
    if experiment == "questions":
        return rows_of("answers", rows=rows)
    return [[statistic, *map(number, numbers)] for statistic, *numbers in (row.values() for row in rows)]


def experiment_json(experiment: str, result: pl.DataFrame | Path) -> Iterator[str]:
    """Yield `{"summary": [...], "records": [...]}` piece by piece, with few records of a run folder in memory."""
    records: Any = result if isinstance(result, pl.DataFrame) else Records(result)
    rows = [
        {key: finite(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in summarised(experiment, records)
    ]
    return frames_json(rows, records=result if isinstance(result, pl.DataFrame) else records.frames())


print_comparison = printer("comparison")  # published figures beside ours, and notes on those that cannot be checked


def print_experiment(result: pl.DataFrame | Path, to: Console, experiment: str) -> None:
    """Print the notebook's summary of an experiment, given as a frame or a run folder."""
    records: Recorded = result if isinstance(result, pl.DataFrame) else Records(result)
    values = {"rows": summary_cells(experiment, records), "published": QWEN3_4B}
    if experiment == "questions":
        values["remarks"] = remarks(records)
    sigmas = records["sigma"].unique().sort().to_list()
    print_text("experiment", to, n=len(records), sigmas=sigmas, experiment=experiment, **values)
