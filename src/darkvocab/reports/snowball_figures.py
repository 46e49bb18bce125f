"""Plots of snowballs: sweeps, trials and questions, and the census that is expected of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .document import TITLES
from .plot import BLACK, BLUE, ORANGE, Axis, Panel, Plot, Series, around, canvas, plain, top_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from .experiments import Recorded

SIGMA = "sigma (weight units, before rounding)"
SIMULATED = "simulated"
# Statistics with a closed form.
CENSUS = ("n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
MOST_MARKS = 10_000


def sweep_plot(records: Recorded, expected: pl.DataFrame | None = None) -> Plot:
    """C, P, singletons, largest group and L-infinity against sigma.

    One trial at a sigma is a mark; several are their mean, in a band from the 10th to the 90th
    percentile. `expected`, the census in closed form, is lines. An axis on top has sigma over the
    base's median ulp.
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
    shown = "a point each" if trials == 1 else f"{trials:,} trials each: mean, 10th to 90th percentile"
    of = "a snowball" if trials == 1 else "the mean"
    curve = "" if expected is None else f"; line: expected, ± 1 standard deviation of {of}"
    caption = _caption(records, f"{n_sigma:,} sigma, {shown}{curve}")
    return Plot(panels=panels, columns=2, height=7.6, caption=caption, top=top)


def questions_plot(records: Recorded) -> Plot:
    """The three answers against sigma: how connected, how far apart, in what populations."""
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
    """Singletons against sigma, a mark a trial (of very many, ten thousand)."""
    sigma, singletons = records["sigma"].to_numpy(), records["n_singletons"].to_numpy()
    some = np.linspace(0, len(sigma) - 1, min(len(sigma), MOST_MARKS)).astype(int)
    series = Series(x=sigma[some], y=singletons[some], line="", mark="o", size=_size(len(some)), alpha=0.5)
    panel = _panel("singletons, a point a trial", sigma_axis(sigma), [series])
    return Plot(panels=[panel], height=3.4, caption=_caption(records, f"{len(sigma):,} trials"))


def elements_figure(path: Path, records: Recorded) -> Figure:
    """Elements of `row - base`: their histogram with the fitted normal density, and a Q-Q plot.

    Of several sigma it takes the middle one. Skewness and excess kurtosis are moments of the sample,
    not corrected for bias.
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
        low, high = values[0], values[-1]
        if high > low:
            left.hist(values, bins=100, density=True, color=BLUE, alpha=0.55, histtype="stepfilled")
            x = np.linspace(low, high, 1000)
            left.plot(x, np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi)), color=BLACK, linewidth=1)
            left.set_xlim(low, high)
        left.set_title("elements of row - base, and the fitted normal")
        left.set(xlabel="row - base (weight units)", ylabel="density")
        facts = f"mean {mean:.3e}\nstd {std:.6e}\nskewness {skewness:+.4f}\nexcess kurtosis {kurtosis:+.4f}\nn {n:,}"
        left.text(0.98, 0.97, facts, transform=left.transAxes, ha="right", va="top", fontsize=7)
        # As many as can be told apart, evenly along the axis: the outermost are all there.
        shown = np.unique((ndtr(np.linspace(-6, 6, 600)) * n).astype(int).clip(0, n - 1))
        quantiles = ndtri((shown + 0.5) / n)
        right.plot(quantiles, mean + std * quantiles, color=BLACK, linewidth=1, label="normal of that mean and std")
        right.plot(quantiles, values[shown], "o", color=BLUE, markersize=2, markeredgewidth=0, label="elements")
        right.set_title("Q-Q plot")
        right.set(xlabel="quantile of the standard normal distribution", ylabel="quantile of the elements")
        right.legend(loc="upper left")
    return figure


def expected_series(expected: pl.DataFrame, column: str, trials: int = 1) -> Series:
    """Expected value of a statistic, in a band of one standard deviation of the mean of the trials.

    The expected largest group is known between bounds: the curve is their middle, the band reaches
    from one to the other.
    """
    if column == "largest_bh":
        low, high = expected["largest_bh_low"].to_numpy(), expected["largest_bh_high"].to_numpy()
        label = "expected, between bounds"
    else:
        mean = expected[column].to_numpy()
        error = expected[f"{column}_std"].to_numpy() / trials**0.5
        low, high = mean - error, mean + error
        label = "expected"
    x = expected["sigma"].to_numpy()
    return Series(x=x, y=(low + high) / 2, band=(low, high), label=label, colour=BLACK, width=0.8)


def sigma_axis(sigma: np.ndarray, label: str = SIGMA) -> Axis:
    """Return an axis of sigma, a log one where sigma spans much."""
    spans_much = sigma.min() > 0 and sigma.max() / sigma.min() > 30
    return around(sigma, label, "log" if spans_much else "linear")


def titled(first: dict[str, Any], last: str) -> str:
    """Return which snowballs a plot shows, by the settings in a record, and a line of its own."""
    noise = "" if first["distribution"] == "gaussian" else f"{first['distribution']} noise, "
    seed = f", seed {first['seed']}" if "seed" in first else ""
    return (
        f"Snowballs of {first['n_tokens']:,} tokens x {first['hidden_dim']:,}, base {plain(first['base'])}, {noise}"
        f"rounded to {first['grid']} ({first['arithmetic']} arithmetic){seed}\n{last}"
    )


def _caption(records: Recorded, last: str) -> str:
    names = ("n_tokens", "hidden_dim", "base", "grid", "arithmetic", "distribution", "seed")
    return titled({name: records[name][0] for name in names}, last)


def _panel(
    title: str, x: Axis, series: list[Series], *, least: float = 0.0, below: float = 0.0, **legend: Any
) -> Panel:
    """A panel whose y axis begins at 0, or `below` it (part of its length), to show marks at 0."""
    top = top_of(series, least)
    return Panel(title=title, x=x, y=Axis(ends=(-below * top, top)), series=series, **legend)


def _means(records: Recorded, columns: str) -> list[Series]:
    looks = {"median": (ORANGE, "s"), "mean": (BLUE, "o"), "max": (BLACK, "^")}
    return [_along(records, columns.format(name), name, *look) for name, look in looks.items()]


def _along(records: Recorded, column: str, label: str, colour: str, mark: str) -> Series:
    """A statistic at each sigma: the value of one trial, or the mean of several in a band."""
    import polars as pl

    frame = pl.DataFrame({"sigma": records["sigma"], column: records[column]})
    if "l_inf" in column and records["l_inf_rows"][0] == "black_holes":
        # Between fewer than two black holes there is no distance, whatever the column says.
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
        return Series(x=sigma, y=mean, band=(low, high), label=label, colour=colour, mark=mark, line=line)
    size = _size(len(sigma))
    series = Series(x=sigma, y=mean, label=label, colour=colour, line="", mark=mark, size=size, alpha=0.75)
    # The last to be drawn is hollow, so that what it coincides with shows through.
    return replace(series, hollow=True, size=size + 2, alpha=1) if mark == "^" else series


def _size(n: int) -> float:
    return float(np.clip(60 / max(n, 1) ** 0.5, 1.6, 4))
