"""The expected census of snowballs: its table, its figure, and a run beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..errors import InvalidInput
from ..runs.records import EXPECTED, frame_of, reading
from .console import print_left, print_lines, show, table
from .document import TITLES, labels
from .plot import BLACK, BLUE, ORANGE, Axis, Panel, Plot, Series, top_of
from .snowball_figures import expected_series, sigma_axis, titled

if TYPE_CHECKING:
    import polars as pl

    from ..snowballs.agreement import Agreement
    from ..snowballs.expect import Expected

SHOWN_ROWS = 20
STATISTICS = labels("unique_vectors", "n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs")
DRAWN = ("unique_vectors", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
COLOURS = {"unique_vectors": (BLACK, "o"), "n_black_holes": (BLUE, "s"), "black_hole_population": (ORANGE, "^")}


def read_expected(folder: Path) -> pl.DataFrame | None:
    """Read the expected census that a sweep left, None where it left none; CorruptFile if damaged."""
    import polars as pl

    path = folder / EXPECTED
    if not path.is_file():
        return None
    counts = [name for name in DRAWN if name != "largest_bh"]
    needed = ["sigma", *counts, *(f"{name}_std" for name in counts), "largest_bh_low", "largest_bh_high"]
    with reading(path, "the expected census of a sweep"):
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()), columns=needed).cast(pl.Float64)
        if not len(frame) or not np.isfinite(frame.to_numpy()).all():
            raise InvalidInput("no points, or numbers that are none")
    return frame


def value(mean: float, std: float | None = None) -> str:
    """Return an expected value for people, and its standard deviation."""
    return f"{mean:,.5g}" if std is None else f"{mean:,.5g} ± {std:.2g}"


def some(n: int) -> list[int]:
    """Return twenty of n places, evenly, or all."""
    return np.unique(np.linspace(0, n - 1, min(n, SHOWN_ROWS)).round().astype(int)).tolist()


def print_expected(points: Sequence[Expected], to: Console) -> None:
    """Print a row a sigma: expected value ± standard deviation of each statistic; of many sigma twenty."""
    rows = []
    for point in (points[place] for place in some(len(points))):
        largest = dict.fromkeys((value(point.largest_bh_low), value(point.largest_bh_high)))
        statistics = (value(getattr(point, name), getattr(point, f"{name}_std")) for name in STATISTICS)
        rows.append([f"{point.sigma:.7g}", *statistics, " to ".join(largest)])
    _show(("sigma", *STATISTICS.values(), "largest group"), rows, len(points), to)


def _show(headings: Sequence[str], rows: list[list[str]], n_sigmas: int, to: Console) -> None:
    show(table(headings, rows), to)
    print_left(n_sigmas - len(rows), "sigma between them; --json lists them all", to)


def print_agreement(agreement: Agreement, to: Console) -> None:
    """Print a row a sigma: of each statistic the expected value, the mean of the trials, and its z-score."""
    points = agreement.expected
    each = np.reshape(np.array(agreement.comparisons, object), (len(points), -1))
    rows = []
    for place in some(len(points)):
        compared = {row.statistic: row for row in each[place]}
        cells = [f"{points[place].sigma:.7g}", f"{each[place][0].trials:,}"]
        for row in (compared[name] for name in COLOURS):
            z = "" if row.z is None else f"{row.z:+.2f}"
            cells += [value(row.expected, row.std), value(row.simulated), z]
        rows.append(cells)
    headings = (name for column in COLOURS for name in (STATISTICS[column], "simulated", "z"))
    _show(("sigma", "trials", *headings), rows, len(points), to)
    print_lines(agreement.sentences(), to)


def expected_plot(expected: Sequence[Expected], agreement: Agreement | None = None) -> Plot:
    """Plot every statistic against sigma in a band of one standard deviation, and coincident pairs.

    With an `agreement`, its run is drawn beside, and its z-scores in place of the pairs.
    """
    import polars as pl

    points = frame_of(type(expected[0]), expected)
    comparisons = frame_of(type(agreement.comparisons[0]), agreement.comparisons) if agreement else None
    curve, x = points.sort("sigma"), sigma_axis(points["sigma"].to_numpy())
    look: dict[str, Any] = {"line": "", "mark": "o", "size": 2.5, "label": "simulated, mean"}
    panels = []
    for name in DRAWN:
        series = [expected_series(curve, name)]
        if agreement and name == "largest_bh":
            series.insert(0, Series(x=points["sigma"], y=agreement.largest, **look))
        elif comparisons is not None:
            rows = comparisons.filter(pl.col("statistic") == name)
            series.insert(0, Series(x=rows["sigma"], y=rows["simulated"], **look))
        panels.append(Panel(title=TITLES[name], x=x, y=Axis(ends=(0, top_of(series))), series=series, legend="best"))
    panels.append(_pairs_panel(curve, x) if comparisons is None else _z_panel(comparisons, x))
    beside = "" if comparisons is None else f", beside the mean of {_trials(comparisons)}"
    n = points["sigma"].n_unique()
    caption = titled(points.row(0, named=True), f"expected at {n:,} sigma ± 1 standard deviation of a snowball{beside}")
    return Plot(panels=panels, columns=2, height=7.6, caption=caption)


def _pairs_panel(curve: pl.DataFrame, x: Axis) -> Panel:
    pairs, std = curve["coincident_pairs"].to_numpy(), curve["coincident_pairs_std"].to_numpy()
    band = np.maximum(pairs - std, 0), pairs + std
    series = Series(x=curve["sigma"], y=pairs, band=band, label="expected", colour=BLACK, width=0.8)
    y = Axis(ends=(0, top_of([series])))
    if pairs.max() > 0:
        least = max(pairs[pairs > 0].min() / 2, min(1e-3, pairs.max() / 10))
        y = Axis(ends=(least, 3 * pairs.max()), scale="log")
    return Panel(title=TITLES["coincident_pairs"], x=x, y=y, series=[series])


def _z_panel(comparisons: pl.DataFrame, x: Axis) -> Panel:
    import polars as pl

    series = [Series(x=x.ends, y=(z, z), colour="#808080", line=":", width=0.8) for z in (-3, 3)]
    for name, (colour, mark) in COLOURS.items():
        rows = comparisons.filter(pl.col("statistic") == name).drop_nulls("z")
        label = STATISTICS[name]
        series.append(Series(x=rows["sigma"], y=rows["z"], label=label, colour=colour, line="", mark=mark, size=2.5))
    far = max(4.0, 1.1 * float(comparisons["z"].abs().max() or 0))  # type: ignore[arg-type]
    title = "z-scores: (simulated - expected) / standard error"
    return Panel(title=title, x=x, y=Axis(ends=(-far, far)), series=series, legend="best")


def _trials(comparisons: pl.DataFrame) -> str:
    least, most = int(comparisons["trials"].min()), int(comparisons["trials"].max())  # type: ignore[arg-type]
    number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{number} trial{'s' * (most > 1)} each"
