"""What is expected of snowballs: its table, its figure, and that of a run beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..errors import CorruptFile, InvalidInput
from ..runs.records import EXPECTED
from .console import show
from .figures import BLACK, BLUE, ORANGE, SIGMA, STYLE, caption, draw_expected, scale_of, titled

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

SHOWN_ROWS = 20
STATISTICS = {
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "coincident_pairs": "coincident pairs",
}
PANELS = {
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes, C",
    "black_hole_population": "tokens in black holes, P",
    "n_singletons": "singletons",
    "largest_bh": "tokens in the largest group",
}
COLOURS = {
    "unique_vectors": (BLACK, "o"),
    "n_black_holes": (BLUE, "s"),
    "black_hole_population": (ORANGE, "^"),
}


def read_expected(folder: Path) -> pl.DataFrame | None:
    """The expected census along a sweep, as its run left it; None where it left none.

    Raises
    ------
    CorruptFile
        Another file there.
    """
    import polars as pl

    path = folder / EXPECTED
    if not path.is_file():
        return None
    counts = [name for name in PANELS if name != "largest_bh"]
    needed = ["sigma", *counts, *(f"{name}_std" for name in counts), "largest_bh_low", "largest_bh_high"]
    try:
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()), columns=needed).cast(pl.Float64)
        if not len(frame) or not np.isfinite(frame.to_numpy()).all():
            raise InvalidInput("no points, or numbers that are none")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise CorruptFile(f"{path}: not the expected census of a sweep ({error})") from None
    return frame


def value(mean: float, std: float | None = None) -> str:
    """An expected value for people, and its standard deviation."""
    return f"{mean:,.5g}" if std is None else f"{mean:,.5g} ± {std:.2g}"


def some(rows: Sequence[Any]) -> list[int]:
    """Twenty places, evenly, or all."""
    return np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SHOWN_ROWS)).round().astype(int)).tolist()


def print_expected(points: Sequence[dict[str, Any]], to: Console) -> None:
    """One row a sigma: expected value ± standard deviation of each statistic; of many sigma twenty."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("sigma", *STATISTICS.values(), "largest group"):
        table.add_column(heading, justify="right")
    for place in some(points):
        point = points[place]
        low, high = value(point["largest_bh_low"]), value(point["largest_bh_high"])
        table.add_row(
            f"{point['sigma']:.7g}",
            *(value(point[name], point[f"{name}_std"]) for name in STATISTICS),
            low if low == high else f"{low} to {high}",
        )
    show(table, to)
    _left(points, to)


def _left(points: Sequence[Any], to: Console) -> None:
    if left := len(points) - len(some(points)):
        to.print(f"and {left:,} more sigma between them; --json lists them all")


def print_agreement(
    points: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]], sentences: Sequence[str], to: Console
) -> None:
    """One row a sigma: of each statistic what is expected, the mean of the trials, and its z-score."""
    shown = list(COLOURS)
    each = [comparisons[i : i + len(comparisons) // len(points)] for i in range(0, len(comparisons), 4)]
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("sigma", justify="right")
    table.add_column("trials", justify="right")
    for name in shown:
        for heading in (STATISTICS[name], "simulated", "z"):
            table.add_column(heading, justify="right")
    for place in some(points):
        found = {row["statistic"]: row for row in each[place]}
        cells = [f"{points[place]['sigma']:.7g}", f"{each[place][0]['trials']:,}"]
        for name in shown:
            row = found[name]
            z = "" if row["z"] is None else f"{row['z']:+.2f}"
            cells += [value(row["expected"], row["std"]), value(row["simulated"]), z]
        table.add_row(*cells)
    show(table, to)
    _left(points, to)
    for sentence in sentences:
        to.print(sentence, soft_wrap=not to.is_terminal)


def expected_figure(
    points: pl.DataFrame, comparisons: pl.DataFrame | None = None, largest: Sequence[float] | None = None
) -> Figure:
    """Every statistic against sigma in a band of one standard deviation, and coincident pairs; of a run its z-scores.

    Parameters
    ----------
    points : the fields of `darkvocab.Expected`
    comparisons, largest : of a run the fields of `darkvocab.experiments.agreement.Compared`, and the mean population of
        the largest group at each sigma
    """
    import matplotlib
    import polars as pl
    from matplotlib.figure import Figure

    sigma, order = points["sigma"].to_numpy(), points["sigma"].arg_sort()
    curve = points[order]
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 7.6), layout="constrained")
        axes = figure.subplots(3, 2, sharex=True).ravel()
        look: dict[str, Any] = {"color": BLUE, "markersize": 2.5, "markeredgewidth": 0, "label": "simulated, mean"}
        for panel, (name, title) in zip(axes, PANELS.items(), strict=False):
            if comparisons is not None and name != "largest_bh":
                found = comparisons.filter(pl.col("statistic") == name)
                panel.plot(found["sigma"].to_numpy(), found["simulated"].to_numpy(), "o", **look)
            elif largest is not None:
                panel.plot(sigma, np.asarray(largest), "o", **look)
            draw_expected(panel, curve, name)
            panel.set_title(title)
            panel.set_ylim(0, 1.06 * max(panel.dataLim.ymax, 1e-300))
            panel.legend(loc="best", handletextpad=0.4, borderaxespad=0.2)
            scale_of(panel, sigma)
        last = axes[-1]
        if comparisons is None:
            pairs, std = curve["coincident_pairs"].to_numpy(), curve["coincident_pairs_std"].to_numpy()
            along, low = curve["sigma"].to_numpy(), np.maximum(pairs - std, 0)
            last.fill_between(along, low, pairs + std, color=BLACK, alpha=0.18, linewidth=0)
            last.plot(along, pairs, "-", color=BLACK, linewidth=0.8, label="expected")
            last.set_title("coincident pairs")
            if pairs.max() > 0:
                last.set_yscale("log")
                last.set_ylim(max(pairs[pairs > 0].min() / 2, min(1e-3, pairs.max() / 10)), 3 * pairs.max())
        else:
            for name, (colour, marker) in COLOURS.items():
                found = comparisons.filter(pl.col("statistic") == name).drop_nulls("z")
                marks = {**look, "color": colour, "label": STATISTICS[name]}
                last.plot(found["sigma"].to_numpy(), found["z"].to_numpy(), marker, **marks)
            for z in (-3, 3):
                last.axhline(z, color="0.5", linewidth=0.8, linestyle=":")
            last.set_title("z-scores: (simulated - expected) / standard error")
            far = max(4.0, 1.1 * float(np.abs(last.dataLim.intervaly).max())) if len(last.lines) else 4.0
            last.set_ylim(-far, far)
            last.legend(loc="best", handletextpad=0.3, borderaxespad=0.2, markerscale=1.5)
        scale_of(last, sigma)
        for panel in axes[-2:]:
            panel.set_xlabel(SIGMA)
        n = points["sigma"].n_unique()
        beside = "" if comparisons is None else f", beside the mean of {_trials(comparisons)}"
        last_line = f"expected at {n:,} sigma ± 1 standard deviation of a snowball{beside}"
        caption(figure, titled(points.row(0, named=True), last_line))
    return figure


def _trials(comparisons: pl.DataFrame) -> str:
    least, most = int(comparisons["trials"].min()), int(comparisons["trials"].max())  # type: ignore[arg-type]
    number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{number} trial{'s' * (most > 1)} each"
