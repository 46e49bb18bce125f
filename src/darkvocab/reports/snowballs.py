"""Plots of sweeps, trials and questions; table and plot of the expected census, alone or compared with a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..errors import InvalidInput
from ..runs.records import EXPECTED, frame_of, reading
from .document import TITLES, labels, phrase, print_text
from .plot import BLACK, BLUE, ORANGE, Axis, Curve, Panel, Plot, around, canvas, plain, top_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from ..snowballs.expect import Agreement
    from .experiments import Recorded

SIGMA = "sigma (weight units, before rounding)"
SIMULATED = "simulated"
CENSUS = ("n_black_holes", "black_hole_population", "n_singletons", "largest_bh")  # statistics with a closed form
MOST_MARKS = 10_000
SHOWN_SIGMAS = 20
EXPECTED_LABELS = labels("unique_vectors", "n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs")
PLOTTED = ("unique_vectors", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
COLOURS = {"unique_vectors": (BLACK, "o"), "n_black_holes": (BLUE, "s"), "black_hole_population": (ORANGE, "^")}


def sweep_plot(records: Recorded, expected: pl.DataFrame | None = None) -> Plot:
    """Plot C, P, singletons, largest group and L-infinity against sigma.

    A single trial at a sigma is a mark; several are a mean in a band from the 10th to the 90th
    percentile. `expected`, the census in closed form, adds lines.
    """
    sigma = records["sigma"].to_numpy()
    n_sigma = records["sigma"].n_unique()
    trials = len(records) // n_sigma
    x = sigma_axis(sigma)
    panels: list[Panel] = []
    for column in CENSUS:
        series = [_along(records, column, "" if expected is None else SIMULATED, BLUE, "o")]
        if expected is not None:
            series.append(expected_series(expected, column, trials))
        legend = "best" if expected is not None and not panels else ""
        panels.append(_panel(TITLES[column], x, series, legend=legend, reverse=True))
    rows = str(records["l_inf_rows"][0] or "rows").replace("_", " ")
    for unit, columns in (("weight units", "{}_l_inf"), ("grid steps", "{}_l_inf_steps")):
        series = _means(records, columns)
        panels.append(_panel(f"L-infinity among {rows} ({unit})", x, series, legend="best", reverse=True))
    ratio = (records["sigma_over_median_ulp"] / records["sigma"]).drop_nans()
    top = None
    if len(ratio) and sigma.max() > 0:
        top = float(ratio.median()), "sigma / median ulp of the base"  # type: ignore[arg-type]
    caption = _caption(
        records, phrase("sweep_caption", n_sigma=n_sigma, trials=trials, is_expected=expected is not None)
    )
    return Plot(panels=panels, columns=2, height=7.6, caption=caption, top=top)


def questions_plot(records: Recorded) -> Plot:
    """Plot the three answers against sigma: density, L-infinity, and rows."""
    n_sigma = records["sigma"].n_unique()
    trials = len(records) // n_sigma
    touching = str(records["touching"][0]).replace("weight", "(weight units)")
    density = [
        _along(records, "density_2_steps", "<= 2 steps", ORANGE, "s"),
        _along(records, "density_1_step", "<= 1 step", BLACK, "^"),
        _along(records, "density", touching, BLUE, "o"),
    ]
    rows = [
        _along(records, "n_unique", "unique rows", BLUE, "o"),
        _along(records, "n_black_holes", "black holes", BLACK, "^"),
    ]
    x = sigma_axis(records["sigma"].to_numpy(), "sigma (weight units)")
    panels = [
        _panel("density over all tokens", x, density, least=1e-3, below=0.03, legend="upper right"),
        _panel("L-infinity (weight units)", x, _means(records, "{}_linf"), below=0.03, legend="best"),
        _panel("rows", x, rows, below=0.03, legend="best"),
    ]
    caption = _caption(records, f"{n_sigma:,} sigma, {trials:,} trial{'s' * (trials > 1)} each")
    return Plot(panels=panels, columns=3, height=3.0, caption=caption)


def singletons_plot(records: Recorded) -> Plot:
    """Plot singletons against sigma: a mark for each trial, at most ten thousand."""
    sigma = records["sigma"].to_numpy()
    some = np.linspace(0, len(sigma) - 1, min(len(sigma), MOST_MARKS)).astype(int)
    singletons = records["n_singletons"].to_numpy()[some]
    series = Curve(x=sigma[some], y=singletons, line="", mark="o", size=_size(len(some)), alpha=0.5)
    panel = _panel("singletons, a point a trial", sigma_axis(sigma), [series])
    return Plot(panels=[panel], height=3.4, caption=_caption(records, f"{len(sigma):,} trials"))


def elements_figure(path: Path, records: Recorded) -> Figure:
    """Draw a histogram of the elements of `row - base` at the middle sigma, the fitted normal density, and a Q-Q plot.

    Skewness and excess kurtosis are not corrected for bias.
    """
    import polars as pl
    from scipy.special import ndtr, ndtri

    sample = pl.read_parquet(io.BytesIO(path.read_bytes()))
    points = sample["point"].unique().sort()
    sample = sample.filter(pl.col("point") == points[len(points) // 2])
    values = np.sort(sample["value"].to_numpy().astype(np.float64))
    n = len(values)
    mean, std = values.mean(), values.std()
    scaled = (values - mean) / std if std > 0 else np.zeros(n)
    skewness, kurtosis = (scaled**3).mean(), (scaled**4).mean() - 3
    with canvas(_caption(records, f"sampled at sigma {sample['sigma'][0]:.7g}"), 3.4) as figure:
        left, right = figure.subplots(1, 2)
        if values[-1] > values[0]:
            left.hist(values, bins=100, density=True, color=BLUE, alpha=0.55, histtype="stepfilled")
            x = np.linspace(values[0], values[-1], 1000)
            left.plot(x, np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi)), color=BLACK, linewidth=1)
            left.set_xlim(values[0], values[-1])
        left.set_title("elements of row - base, and the fitted normal")
        left.set(xlabel="row - base (weight units)", ylabel="density")
        facts = f"mean {mean:.3e}\nstd {std:.6e}\nskewness {skewness:+.4f}\nexcess kurtosis {kurtosis:+.4f}\nn {n:,}"
        left.text(0.98, 0.97, facts, transform=left.transAxes, ha="right", va="top", fontsize=7)
        # Points evenly spaced along the axis, as dense as the eye resolves; all outermost elements are included.
        shown = np.unique((ndtr(np.linspace(-6, 6, 600)) * n).astype(int).clip(0, n - 1))
        quantiles = ndtri((shown + 0.5) / n)
        right.plot(quantiles, mean + std * quantiles, color=BLACK, linewidth=1, label="normal of that mean and std")
        right.plot(quantiles, values[shown], "o", color=BLUE, markersize=2, markeredgewidth=0, label="elements")
        right.set_title("Q-Q plot")
        right.set(xlabel="quantile of the standard normal distribution", ylabel="quantile of the elements")
        right.legend(loc="upper left")
    return figure


def expected_series(expected: pl.DataFrame, column: str, trials: int = 1) -> Curve:
    """Return the expected value of a statistic, in a band of one standard deviation of the mean of the trials.

    The largest group has bounds only: they are the band, and the curve lies halfway between them.
    """
    if column == "largest_bh":
        low, high = (expected[f"{column}_{end}"].to_numpy() for end in ("low", "high"))
    else:
        error = expected[f"{column}_std"].to_numpy() / trials**0.5
        low, high = (expected[column].to_numpy() + side * error for side in (-1, 1))
    label = "expected, between bounds" if column == "largest_bh" else "expected"
    x = expected["sigma"].to_numpy()
    return Curve(x=x, y=(low + high) / 2, band=(low, high), label=label, colour=BLACK, width=0.8)


def sigma_axis(sigma: np.ndarray, label: str = SIGMA) -> Axis:
    """Return an axis of sigma; logarithmic if it spans a factor of more than 30."""
    is_log = sigma.min() > 0 and sigma.max() / sigma.min() > 30
    return around(sigma, label, "log" if is_log else "linear")


def _caption(records: Recorded, last: str) -> str:
    names = ("n_tokens", "hidden_dim", "base", "grid", "arithmetic", "distribution", "seed")
    return titled({name: records[name][0] for name in names}, last)


def titled(first: dict[str, Any], last: str) -> str:
    """Return a caption of two lines: the snowballs, by the settings in a record, and `last`."""
    return f"{phrase('snowballs', first=first, plain=plain)}\n{last}"


def _panel(title: str, x: Axis, series: list[Curve], *, least: float = 0.0, below: float = 0.0, **legend: Any) -> Panel:
    """Return a panel whose y axis starts at 0, or below 0 (by a share `below` of its length) to show marks at 0."""
    top = top_of(series, least)
    return Panel(title=title, x=x, y=Axis(ends=(-below * top, top)), series=series, **legend)


def _means(records: Recorded, columns: str) -> list[Curve]:
    looks = {"median": (ORANGE, "s"), "mean": (BLUE, "o"), "max": (BLACK, "^")}
    return [_along(records, columns.format(name), name, *look) for name, look in looks.items()]


def _along(records: Recorded, column: str, label: str, colour: str, mark: str) -> Curve:
    """Return a statistic at each sigma: the value of one trial, or the mean of several in a band."""
    import polars as pl

    frame = pl.DataFrame({"sigma": records["sigma"], column: records[column]})
    if "l_inf" in column and records["l_inf_rows"][0] == "black_holes":
        # Fewer than two black holes have no distance, whatever the column holds.
        frame = frame.filter(records["n_black_holes"] > 1)
    value = pl.col(column)
    points = (
        frame.drop_nulls()
        .group_by("sigma", maintain_order=True)
        .agg(mean=value.mean(), low=value.quantile(0.1), high=value.quantile(0.9))
        .sort("sigma")
    )
    sigma, mean, low, high = (points[name].to_numpy() for name in ("sigma", "mean", "low", "high"))
    if len(records) > records["sigma"].n_unique():
        line = "" if label == SIMULATED else "-"  # the expected curve goes through these
        return Curve(x=sigma, y=mean, band=(low, high), label=label, colour=colour, mark=mark, line=line)
    size = _size(len(sigma))
    series = Curve(x=sigma, y=mean, label=label, colour=colour, line="", mark=mark, size=size, alpha=0.75)
    # The last curve is hollow, so that marks beneath show through.
    return replace(series, hollow=True, size=size + 2, alpha=1) if mark == "^" else series


def _size(n: int) -> float:
    return float(np.clip(60 / max(n, 1) ** 0.5, 1.6, 4))


def read_expected(folder: Path) -> pl.DataFrame | None:
    """Read the expected census beside a sweep; None if there is none. Raises CorruptFile if it is damaged."""
    import polars as pl

    path = folder / EXPECTED
    if not path.is_file():
        return None
    counts = [name for name in PLOTTED if name != "largest_bh"]
    needed = ["sigma", *counts, *(f"{name}_std" for name in counts), "largest_bh_low", "largest_bh_high"]
    with reading(path, "the expected census of a sweep"):
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()), columns=needed).cast(pl.Float64)
        if not len(frame) or not np.isfinite(frame.to_numpy()).all():
            raise InvalidInput("no points, or numbers that are none")
    return frame


def value(mean: float, std: float | None = None) -> str:
    """Format an expected value and its standard deviation."""
    return f"{mean:,.5g}" if std is None else f"{mean:,.5g} ± {std:.2g}"


def some(n: int) -> list[int]:
    """Return at most twenty of n indices, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, SHOWN_SIGMAS)).round().astype(int)).tolist()


def print_expected(points: Sequence[Any], to: Console) -> None:
    """Print expected value ± standard deviation of each statistic, for at most twenty sigmas."""
    shown = [points[place] for place in some(len(points))]
    values = {"points": shown, "statistics": EXPECTED_LABELS, "value": value}
    print_text("expected", to, n_left=len(points) - len(shown), **values)


def print_agreement(agreement: Agreement, to: Console) -> None:
    """Print expected value, mean of the trials and z-score of each statistic, for at most twenty sigmas."""
    points = agreement.expected
    each = np.reshape(np.array(agreement.comparisons, object), (len(points), -1))
    shown = [(points[place], each[place].tolist()) for place in some(len(points))]
    values = {"points": shown, "statistics": COLOURS, "value": value, "sentences": agreement.sentences()}
    print_text("agreement", to, n_left=len(points) - len(shown), **values)


def expected_plot(expected: Sequence[Any], agreement: Agreement | None = None) -> Plot:
    """Plot expected statistics and coincident pairs against sigma; with an `agreement`, its means and z-scores, too."""
    import polars as pl

    points = frame_of(type(expected[0]), expected)
    comparisons = frame_of(type(agreement.comparisons[0]), agreement.comparisons) if agreement else None
    curve = points.sort("sigma")
    x = sigma_axis(points["sigma"].to_numpy())
    look: dict[str, Any] = {"line": "", "mark": "o", "size": 2.5, "label": "simulated, mean"}
    panels = []
    for name in PLOTTED:
        series = [expected_series(curve, name)]
        if agreement and name == "largest_bh":
            series.insert(0, Curve(x=points["sigma"], y=agreement.largest, **look))
        elif comparisons is not None:
            rows = comparisons.filter(pl.col("statistic") == name)
            series.insert(0, Curve(x=rows["sigma"], y=rows["simulated"], **look))
        panels.append(Panel(title=TITLES[name], x=x, y=Axis(ends=(0, top_of(series))), series=series, legend="best"))
    panels.append(_pairs_panel(curve, x) if comparisons is None else _z_panel(comparisons, x))
    trials = [] if comparisons is None else comparisons["trials"].unique().sort().to_list()
    last = phrase("expected_caption", n_sigma=points["sigma"].n_unique(), trials=trials)
    return Plot(panels=panels, columns=2, height=7.6, caption=titled(points.row(0, named=True), last))


def _pairs_panel(curve: pl.DataFrame, x: Axis) -> Panel:
    pairs = curve["coincident_pairs"].to_numpy()
    std = curve["coincident_pairs_std"].to_numpy()
    band = np.maximum(pairs - std, 0), pairs + std
    series = Curve(x=curve["sigma"], y=pairs, band=band, label="expected", colour=BLACK, width=0.8)
    y = Axis(ends=(0, top_of([series])))
    if pairs.max() > 0:
        least = max(pairs[pairs > 0].min() / 2, min(1e-3, pairs.max() / 10))
        y = Axis(ends=(least, 3 * pairs.max()), scale="log")
    return Panel(title=TITLES["coincident_pairs"], x=x, y=y, series=[series])


def _z_panel(comparisons: pl.DataFrame, x: Axis) -> Panel:
    import polars as pl

    series = [Curve(x=x.ends, y=(z, z), colour="#808080", line=":", width=0.8) for z in (-3, 3)]
    for name, (colour, mark) in COLOURS.items():
        rows = comparisons.filter(pl.col("statistic") == name).drop_nulls("z")
        label = EXPECTED_LABELS[name]
        series.append(Curve(x=rows["sigma"], y=rows["z"], label=label, colour=colour, line="", mark=mark, size=2.5))
    far = max(4.0, 1.1 * float(comparisons["z"].abs().max() or 0))  # type: ignore[arg-type]
    title = "z-scores: (simulated - expected) / standard error"
    return Panel(title=title, x=x, y=Axis(ends=(-far, far)), series=series, legend="best")
