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

SHOWN_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
SHOWN_STATISTICS = ("mean", "std", "min", *SHOWN_QUANTILES, "max")
MOST_BINS = 10_000
MOST_NUMBERS = 1 << 21  # in all statistics at single sigmas; a summary with more leaves them all out
MOST_TEXTS = 100
HEADINGS = {"p5": "5%", "p25": "25%", "p50": "median", "p75": "75%", "p95": "95%"}
NARROW = 120  # columns of a terminal, below which only some of the statistics are shown


def summary(folder: str | Path, columns: Sequence[str] | None = None, bins: int = 30) -> dict[str, Any]:
    """Return statistics of each column of a run, finished or not: over all records and at each sigma.

    Columns are read one at a time, with about 50 bytes of memory a record. `docs/files.md` describes the result.
    Raises InvalidInput for an unknown column or a bad number of bins, and as `Records`.

    Parameters
    ----------
    columns : only these; by default all, with constant columns listed apart
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
    sigmas = _Sigmas(records)
    n_numeric = sum(records.schema[name].is_numeric() for name in asked)
    is_short = len(sigmas.values) * n_numeric * (bins + 12) <= MOST_NUMBERS
    parts: dict[str, dict[str, Any]] = {"same": {}, "columns": {}, "texts": {}}
    for name in asked:
        if records.schema[name].is_numeric():
            column = _Column(records[name], sigmas.order)
            row = column.statistics(0, n, bins)
            is_constant = row["nulls"] == n or (row["count"] == n and row["min"] == row["max"])
            if columns is None and is_constant:
                parts["same"][name] = row["min"]
            else:
                parts["columns"][name] = row | column.by_sigma(sigmas, bins, is_short)
        else:
            counts = Counter(text for frame in records.frames([name]) for text in frame[name].cast(pl.String).to_list())
            kind = "texts" if len(counts) > 1 or columns else "same"
            row = {"n_distinct": len(counts), "counts": dict(counts.most_common(MOST_TEXTS))}
            parts[kind][name] = next(iter(counts), None) if kind == "same" else row
    return {
        "run": str(folder),
        "experiment": records.manifest.get("experiment"),
        "status": records.manifest["status"],
        "n_records": records.manifest["n_records"],
        "n_landed": n,
        "sigmas": {"count": len(sigmas.values), "min": sigmas.least, "max": sigmas.greatest},
        "bins": bins,
        **parts,
    }


class _Sigmas:
    """The order of records by sigma, and the range of each sigma in it; records without a sigma come last."""

    def __init__(self, records: Records) -> None:
        sigma = np.full(records.n_landed, np.nan)
        if "sigma" in records.schema:
            if not records.schema["sigma"].is_numeric():
                raise CorruptFile(f"records whose sigma is no number but {records.schema['sigma']}")
            sigma = records["sigma"].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
            sigma[~np.isfinite(sigma)] = np.nan
        self.order: np.ndarray | None = None
        if not np.all(sigma[:-1] <= sigma[1:]):  # most runs are sorted
            self.order = np.argsort(sigma, kind="stable")
            sigma = sigma[self.order]
        self.values, self.starts = np.unique(sigma, return_index=True)
        self.stops = np.append(self.starts[1:], len(sigma))
        known = self.values[np.isfinite(self.values)]
        self.least = float(known[0]) if len(known) else None
        self.greatest = float(known[-1]) if len(known) else None

    def __iter__(self) -> Iterator[tuple[float | None, int, int]]:
        """Yield each sigma with the start and stop of its records."""
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

    def by_sigma(self, sigmas: _Sigmas, bins: int, is_short: bool) -> dict[str, Any]:
        """Return the range of means over several sigmas and, if `is_short`, statistics at each one."""
        if len(sigmas.values) < 2:
            return {}
        ranges = sigmas if is_short else ()
        rows = [{"sigma": sigma, **self.statistics(start, stop, bins)} for sigma, start, stop in ranges]
        return {"mean_over_sigmas": self.mean_range(sigmas), "by_sigma": rows if is_short else None}

    def statistics(self, start: int, stop: int, bins: int) -> dict[str, Any]:
        """Return statistics of the finite values from `start` to `stop`, and counts of the other values."""
        values = self.values[start:stop][self.is_known[start:stop]]
        ordered = np.sort(values[np.isfinite(values)])
        n_nan = int(np.isnan(values).sum())
        row: dict[str, Any] = {
            "count": len(ordered),
            "nulls": stop - start - len(values),
            "nan": n_nan,
            "infinite": len(values) - len(ordered) - n_nan,
            **dict.fromkeys((*SHOWN_STATISTICS, "histogram")),
        }
        if not len(ordered):
            return row
        with np.errstate(over="ignore", invalid="ignore"):  # statistics beyond float64 become null
            quantiles = np.quantile(ordered, list(SHOWN_QUANTILES.values()))
            std = finite(float(ordered.std(ddof=1))) if len(ordered) > 1 else None
            row |= {"mean": finite(float(ordered.mean())), "std": std}
            row |= {"min": ordered[0].item(), "max": ordered[-1].item(), "histogram": _histogram(ordered, bins)}
            return row | dict(zip(SHOWN_QUANTILES, map(finite, quantiles.tolist()), strict=True))

    def mean_range(self, sigmas: _Sigmas) -> dict[str, Any]:
        """Return the least and the greatest mean at a single sigma, with that sigma."""
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
    """Return edges and counts as `np.histogram`; a single bin if all values are equal."""
    low, high = ends = [float(ordered[0]), float(ordered[-1])]
    if ordered[0] == ordered[-1]:
        return {"edges": ends, "counts": [len(ordered)]}
    scale = 1 if np.isfinite(high - low) else 2  # a range beyond float64 is halved first
    edges = scale * np.linspace(low / scale, high / scale, bins + 1)
    below = np.searchsorted(ordered, edges[1:-1], side="left")
    return {"edges": edges.tolist(), "counts": np.diff(below, prepend=0, append=len(ordered)).tolist()}


def print_summary(report: dict[str, Any], to: Console, *, single: bool = False) -> None:
    """Print a summary with a row for each column and, with `single`, for each sigma."""
    is_narrow = to.width < NARROW
    shown = ("mean", "min", "p50", "max") if is_narrow else SHOWN_STATISTICS
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
