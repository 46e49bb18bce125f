"""Statistics of each column of a run's records: over all of them, and at each sigma."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from ..errors import CorruptFile, InvalidInput
from ..runs.records import Records
from ..text import finite, printable
from .console import facts, show
from .document import print_text

QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
STATISTICS = ("mean", "std", "min", *QUANTILES, "max")
MOST_BINS = 10_000
MOST_NUMBERS = 1 << 21  # of single sigma, in all; a summary that had more has none of them
MOST_TEXTS = 100
HEADINGS = {"p5": "5%", "p25": "25%", "p50": "median", "p75": "75%", "p95": "95%"}
NARROW = 120  # columns of a terminal, below which only some of the statistics are shown


def summary(folder: str | Path, columns: Sequence[str] | None = None, bins: int = 30) -> dict[str, Any]:
    """Return statistics of a run, finished or not: of each column, over all records and at each sigma.

    Memory holds one column at a time, sigma, and working copies of these: about 50 bytes a record, however many columns
    there are. `docs/files.md` describes the result. Raises InvalidInput for another column or number of bins, and as
    `Records`.

    Parameters
    ----------
    columns : only these; by default all, those that are the same in every record apart
    bins : of each histogram, 1 to 10,000, equally wide between least and greatest value
    """
    if not 1 <= bins <= MOST_BINS:
        raise InvalidInput(f"bins must be from 1 to {MOST_BINS:,}, got {bins}")
    records = Records(folder)
    n = records.n_landed
    asked = list(records.schema) if columns is None or not records.schema else list(dict.fromkeys(columns))
    for name in asked:
        if name not in records.schema:
            raise InvalidInput(f"no column {name!r}; choose one of {', '.join(records.schema)}")
    numeric = [name for name in asked if records.schema[name].is_numeric()]
    sigmas = _Sigmas(records)
    n_numbers = len(sigmas.values) * len(numeric) * (bins + 12)
    same: dict[str, Any] = {}
    varying: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for name in asked:
        if name not in numeric:
            counts = _texts(records, name)
            if len(counts) > 1 or columns:
                texts[name] = {"n_distinct": len(counts), "counts": dict(counts.most_common(MOST_TEXTS))}
            else:
                same[name] = next(iter(counts), None)
            continue
        column = _Column(records[name], sigmas.order)
        of_all = column.statistics(0, n, bins)
        if columns is None and (of_all["nulls"] == n or (of_all["count"] == n and of_all["min"] == of_all["max"])):
            same[name] = of_all["min"]
            continue
        if len(sigmas.values) > 1:
            of_all["mean_over_sigmas"] = column.mean_range(sigmas)
            of_all["by_sigma"] = (
                [{"sigma": sigma, **column.statistics(start, stop, bins)} for sigma, start, stop in sigmas]
                if n_numbers <= MOST_NUMBERS
                else None
            )
        varying[name] = of_all
    return {
        "run": str(folder),
        "experiment": records.manifest.get("experiment"),
        "status": records.manifest["status"],
        "n_records": records.manifest["n_records"],
        "n_landed": records.n_landed,
        "sigmas": {"count": len(sigmas.values), "min": sigmas.least, "max": sigmas.greatest},
        "bins": bins,
        "same": same,
        "columns": varying,
        "texts": texts,
    }


class _Sigmas:
    """Records in the order of sigma, and where each sigma begins; those without come last."""

    def __init__(self, records: Records) -> None:
        sigma = np.full(records.n_landed, np.nan)
        if "sigma" in records.schema:
            if not records.schema["sigma"].is_numeric():
                raise CorruptFile(f"records whose sigma is no number but {records.schema['sigma']}")
            sigma = records["sigma"].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
            sigma[~np.isfinite(sigma)] = np.nan
        self.order: np.ndarray | None = None
        if not np.all(sigma[:-1] <= sigma[1:]):  # mostly they come sorted
            self.order = np.argsort(sigma, kind="stable")
            sigma = sigma[self.order]
        self.values, self.starts = np.unique(sigma, return_index=True)
        self.stops = np.append(self.starts[1:], len(sigma))
        known = self.values[np.isfinite(self.values)]
        self.least = float(known[0]) if len(known) else None
        self.greatest = float(known[-1]) if len(known) else None

    def __iter__(self) -> Iterator[tuple[float | None, int, int]]:
        """Iterate over each sigma and the first and last place (exclusive) of its records."""
        return zip(map(finite, self.values.tolist()), self.starts.tolist(), self.stops.tolist(), strict=True)


class _Column:
    """The numbers of a column, in the order of sigma."""

    def __init__(self, series: pl.Series, order: np.ndarray | None) -> None:
        exact = series.dtype.is_integer() and series.dtype not in (pl.Int128, pl.UInt128)
        series = series if exact else series.cast(pl.Float64)
        self.is_known = series.is_not_null().to_numpy()
        self.values = series.fill_null(0).to_numpy()
        if order is not None:
            self.is_known, self.values = self.is_known[order], self.values[order]

    def statistics(self, start: int, stop: int, bins: int) -> dict[str, Any]:
        """Return statistics of the finite values from `start` to `stop`; the other values are counted."""
        values = self.values[start:stop][self.is_known[start:stop]]
        ordered = np.sort(values[np.isfinite(values)])
        n_nan = int(np.isnan(values).sum())
        row: dict[str, Any] = {
            "count": len(ordered),
            "nulls": stop - start - len(values),
            "nan": n_nan,
            "infinite": len(values) - len(ordered) - n_nan,
            **dict.fromkeys((*STATISTICS, "histogram")),
        }
        if not len(ordered):
            return row
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float64: null in what follows
            quantiles = np.quantile(ordered, list(QUANTILES.values()))
            std = finite(float(ordered.std(ddof=1))) if len(ordered) > 1 else None
            row |= {"mean": finite(float(ordered.mean())), "std": std}
            row |= {"min": ordered[0].item(), "max": ordered[-1].item(), "histogram": _histogram(ordered, bins)}
            return row | dict(zip(QUANTILES, map(finite, quantiles.tolist()), strict=True))

    def mean_range(self, sigmas: _Sigmas) -> dict[str, Any]:
        """Return the least and the greatest of the means at single sigma, and at which."""
        usable = self.is_known & np.isfinite(self.values)
        with np.errstate(all="ignore"):
            sums = np.add.reduceat(np.where(usable, self.values, 0.0), sigmas.starts)
            means = sums / np.add.reduceat(usable.astype(np.int64), sigmas.starts)
        if not np.isfinite(means).any():
            return {}
        ends = {"lowest": np.nanargmin(means), "highest": np.nanargmax(means)}
        return {
            end: {"mean": finite(float(means[at])), "sigma": finite(float(sigmas.values[at]))}
            for end, at in ends.items()
        }


def _histogram(ordered: np.ndarray, bins: int) -> dict[str, Any]:
    """Return edges and counts as numpy has them; one bin where all values are equal."""
    low, high = float(ordered[0]), float(ordered[-1])
    if ordered[0] == ordered[-1]:
        return {"edges": [low, high], "counts": [len(ordered)]}
    # A range beyond float64 has a half that is not.
    edges = (
        np.linspace(low, high, bins + 1) if np.isfinite(high - low) else 2 * np.linspace(low / 2, high / 2, bins + 1)
    )
    below = np.searchsorted(ordered, edges[1:-1], side="left")
    return {"edges": edges.tolist(), "counts": np.diff(below, prepend=0, append=len(ordered)).tolist()}


def _texts(records: Records, name: str) -> Counter[str | None]:
    return Counter(text for frame in records.frames([name]) for text in frame[name].cast(pl.String).to_list())


def print_summary(report: dict[str, Any], to: Console, *, single: bool = False) -> None:
    """Print a summary: a row for each column; with `single`, also a row for each sigma."""
    is_narrow = to.width < NARROW
    shown = ("mean", "min", "p50", "max") if is_narrow else STATISTICS
    headings = [HEADINGS.get(key, key) for key in shown]
    has_range = any("mean_over_sigmas" in row for row in report["columns"].values())
    values = {"shown": shown, "headings": headings, "has_range": has_range, "single": single, "said": _text}
    print_text("summary", to, report=report, bars=None if is_narrow else partial(_bars, to), **values)
    if report["same"]:
        to.print("\nthe same in every record:")
        show(facts((printable(name), _text(value)) for name, value in report["same"].items()), to)


def _bars(to: Console, histogram: dict[str, Any] | None) -> str:
    if histogram is None:
        return ""
    levels = " ▁▂▃▄▅▆▇█" if to.encoding.startswith("utf") else " .:-=+*#@"
    most = max(histogram["counts"])
    return "".join(levels[-(-count * 8 // most)] for count in histogram["counts"])


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else printable(value)
