"""Figures for print: labelled, legible in grey, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput
from ..landing import write_whole
from .experiments import Recorded

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008).
BLUE, ORANGE, BLACK = "#0072B2", "#E69F00", "#000000"
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "darkvocab",
    "pdf.fonttype": 42,
}
CENSUS = "n_black_holes", "black_hole_population", "n_singletons", "largest_bh"  # of which a closed form is known
SIMULATED = "simulated"
SIGMA = "sigma (weight units, before rounding)"
PANELS: tuple[tuple[str, list[tuple[str, str | None, str, str]]], ...] = (
    ("black holes, C", [("n_black_holes", None, BLUE, "o")]),
    ("tokens in black holes, P", [("black_hole_population", None, BLUE, "o")]),
    ("singletons", [("n_singletons", None, BLUE, "o")]),
    ("tokens in the largest group", [("largest_bh", None, BLUE, "o")]),
    (
        "L-infinity among {rows} (weight units)",
        [("median_l_inf", "median", ORANGE, "s"), ("mean_l_inf", "mean", BLUE, "o"), ("max_l_inf", "max", BLACK, "^")],
    ),
    (
        "L-infinity among {rows} (grid steps)",
        [
            ("median_l_inf_steps", "median", ORANGE, "s"),
            ("mean_l_inf_steps", "mean", BLUE, "o"),
            ("max_l_inf_steps", "max", BLACK, "^"),
        ],
    ),
)


def sweep_figure(records: Recorded, expected: pl.DataFrame | None = None) -> Figure:
    """C, P, singletons, largest group and L-infinity against sigma, with sigma over the base's median ulp on top.

    One trial at a sigma: a point a record. Several: their mean, and a band from the 10th to the 90th percentile.
    `expected`: the census in closed form at some sigma: a line over the points.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 7.6), layout="constrained")
        axes = figure.subplots(3, 2, sharex=True).ravel()
        sigma = records["sigma"].to_numpy()
        trials = len(records) // records["sigma"].n_unique()
        rows = str(records["l_inf_rows"][0] or "rows").replace("_", " ")
        for panel, (title, series) in zip(axes, PANELS, strict=True):
            for column, label, colour, marker in series:
                census = expected is not None and column in CENSUS
                _plot(panel, records, column, label or (SIMULATED if census else None), colour, marker, trials)
                if expected is not None and census:
                    draw_expected(panel, expected, column, trials)
            panel.set_title(title.format(rows=rows))
            panel.set_ylim(0, 1.06 * max(panel.dataLim.ymax, 1e-300) if np.isfinite(panel.dataLim.ymax) else 1)
            scale_of(panel, sigma)
            if (len(series) > 1 or (expected is not None and panel is axes[0])) and panel.lines:
                panel.legend(loc="best", reverse=True, handletextpad=0.3, borderaxespad=0.2, markerscale=2)
        for panel in axes[-2:]:
            panel.set_xlabel(SIGMA)
        ratio = (records["sigma_over_median_ulp"] / records["sigma"]).drop_nans()
        if len(ratio) and sigma.max() > 0:
            per_ulp = float(ratio.median())  # type: ignore[arg-type]
            for panel in axes[:2]:
                top = panel.secondary_xaxis("top", functions=(lambda s: s * per_ulp, lambda u: u / per_ulp))
                top.set_xlabel("sigma / median ulp of the base")
        shown = "a point each" if trials == 1 else f"{trials:,} trials each: mean, 10th to 90th percentile"
        curve = "" if expected is None else f"; line: expected, ± 1 standard deviation of {_what(trials)}"
        _caption(figure, records, f"{records['sigma'].n_unique():,} sigma, {shown}{curve}")
    return figure


def _what(trials: int) -> str:
    return "a snowball" if trials == 1 else "the mean"


def draw_expected(panel: Axes, expected: pl.DataFrame, column: str, trials: int = 1) -> None:
    """Expected value of a statistic, in a band of one standard deviation of the mean of so many trials.

    Of the largest group the middle between the bounds of its expected value, in a band from one to the other.
    """
    sigma = expected["sigma"].to_numpy()
    if column == "largest_bh":
        low, high = expected["largest_bh_low"].to_numpy(), expected["largest_bh_high"].to_numpy()
        label = "expected, between bounds"
    else:
        mean, error = expected[column].to_numpy(), expected[f"{column}_std"].to_numpy() / trials**0.5
        low, high, label = mean - error, mean + error, "expected"
    panel.fill_between(sigma, low, high, color=BLACK, alpha=0.18, linewidth=0)
    panel.plot(sigma, (low + high) / 2, "-", color=BLACK, linewidth=0.8, label=label)


def scale_of(panel: Axes, sigma: np.ndarray) -> None:
    """A log axis where sigma spans much."""
    if sigma.min() > 0 and sigma.max() / sigma.min() > 30:
        panel.set_xscale("log")


def _plot(
    panel: Axes, records: Recorded, column: str, label: str | None, colour: str, marker: str, trials: int
) -> None:
    import polars as pl

    frame = pl.DataFrame({"sigma": records["sigma"], column: records[column]})
    if "l_inf" in column and records["l_inf_rows"][0] == "black_holes":
        # Between fewer than two black holes there is no distance, whatever the column says.
        frame = frame.filter(records["n_black_holes"] > 1)
    points = (
        frame.drop_nulls()
        .group_by("sigma")
        .agg(
            pl.col(column).mean().alias("mean"),
            pl.col(column).quantile(0.1).alias("low"),
            pl.col(column).quantile(0.9).alias("high"),
        )
        .sort("sigma")
    )
    sigma, mean = points["sigma"].to_numpy(), points["mean"].to_numpy()
    if trials == 1:
        size = float(np.clip(60 / max(len(sigma), 1) ** 0.5, 1.6, 4))
        look: dict[str, Any] = {"markersize": size, "markeredgewidth": 0.0, "alpha": 0.75}
        if marker == "^":  # drawn last and open, so that what it coincides with shows through
            look = {"markersize": size + 2, "markeredgewidth": 0.5, "markerfacecolor": "none"}
        panel.plot(sigma, mean, marker, color=colour, label=label, **look)
        return
    panel.fill_between(sigma, points["low"].to_numpy(), points["high"].to_numpy(), color=colour, alpha=0.2, linewidth=0)
    line = "" if label == SIMULATED else "-"  # a curve goes through these
    panel.plot(sigma, mean, f"{marker}{line}", color=colour, markersize=2.5, linewidth=1, label=label)


def elements_figure(path: Path, records: Recorded) -> Figure:
    """Elements of `row - base`: their histogram with the fitted normal density, and a Q-Q plot.

    Of several sigma the middle one's. Skewness and excess kurtosis are those of the sample (moments, not unbiased).
    """
    import matplotlib
    import polars as pl
    from matplotlib.figure import Figure
    from scipy.special import ndtr, ndtri

    sample = pl.read_parquet(io.BytesIO(path.read_bytes()))
    points = sample["point"].unique().sort()
    point = points[len(points) // 2]
    sample = sample.filter(pl.col("point") == point)
    values = np.sort(sample["value"].to_numpy().astype(np.float64))
    n, mean, std = len(values), values.mean(), values.std()
    scaled = (values - mean) / std if std > 0 else np.zeros(n)
    skewness, kurtosis = (scaled**3).mean(), (scaled**4).mean() - 3
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        low, high = values[0], values[-1]
        if high > low:
            left.hist(values, bins=100, density=True, color=BLUE, alpha=0.55, histtype="stepfilled")
            x = np.linspace(low, high, 1000)
            left.plot(x, np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi)), color=BLACK, linewidth=1)
            left.set_xlim(low, high)
        left.set_title("elements of row - base, and the fitted normal")
        left.set_xlabel("row - base (weight units)")
        left.set_ylabel("density")
        facts = f"mean {mean:.3e}\nstd {std:.6e}\nskewness {skewness:+.4f}\nexcess kurtosis {kurtosis:+.4f}\nn {n:,}"
        left.text(0.98, 0.97, facts, transform=left.transAxes, ha="right", va="top", fontsize=7)
        # As many as can be told apart, evenly along the axis: the outermost are all there.
        shown = np.unique((ndtr(np.linspace(-6, 6, 600)) * n).astype(int).clip(0, n - 1))
        expected = ndtri((shown + 0.5) / n)
        right.plot(expected, mean + std * expected, color=BLACK, linewidth=1, label="normal of that mean and std")
        right.plot(expected, values[shown], "o", color=BLUE, markersize=2, markeredgewidth=0, label="elements")
        right.set_title("Q-Q plot")
        right.set_xlabel("quantile of the standard normal distribution")
        right.set_ylabel("quantile of the elements")
        right.legend(loc="upper left")
        _caption(figure, records, f"sampled at sigma {sample['sigma'][0]:.7g}")
    return figure


def singletons_figure(records: Recorded) -> Figure:
    """Singletons against sigma, a point for every trial (of very many, ten thousand)."""
    import matplotlib
    from matplotlib.figure import Figure

    sigma, singletons = records["sigma"].to_numpy(), records["n_singletons"].to_numpy()
    some = np.linspace(0, len(sigma) - 1, min(len(sigma), 10_000)).astype(int)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 3.4), layout="constrained")
        panel = figure.subplots()
        size = float(np.clip(60 / len(some) ** 0.5, 1.6, 4))
        panel.plot(sigma[some], singletons[some], "o", color=BLUE, markersize=size, markeredgewidth=0, alpha=0.5)
        panel.set_title("singletons, a point a trial")
        panel.set_ylim(0, 1.06 * max(singletons.max(), 1))
        panel.set_xlabel(SIGMA)
        scale_of(panel, sigma)
        _caption(figure, records, f"{len(sigma):,} trials")
    return figure


def questions_figure(records: Recorded) -> Figure:
    """The three answers against sigma: how connected, how far apart, in what populations."""
    import matplotlib
    from matplotlib.figure import Figure

    sigma = records["sigma"].to_numpy()
    trials = len(records) // records["sigma"].n_unique()
    touching = str(records["touching"][0]).replace("weight", "(weight units)")
    panels = (
        (
            "density over all tokens",
            1e-3,
            [
                ("density_2_steps", "<= 2 steps", ORANGE, "s"),
                ("density_1_step", "<= 1 step", BLACK, "^"),
                ("density", touching, BLUE, "o"),
            ],
        ),
        (
            "L-infinity (weight units)",
            1e-300,
            [("median_linf", "median", ORANGE, "s"), ("mean_linf", "mean", BLUE, "o"), ("max_linf", "max", BLACK, "^")],
        ),
        ("rows", 1.0, [("n_unique", "unique rows", BLUE, "o"), ("n_black_holes", "black holes", BLACK, "^")]),
    )
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 3.0), layout="constrained")
        for panel, (title, least, series) in zip(figure.subplots(1, 3), panels, strict=True):
            for column, label, colour, marker in series:
                _plot(panel, records, column, label, colour, marker, trials)
            panel.set_title(title)
            panel.set_xlabel("sigma (weight units)")
            top = max(1.08 * panel.dataLim.ymax, least)
            panel.set_ylim(-0.03 * top, top)  # what lies at 0 is seen whole
            scale_of(panel, sigma)
            place = "upper right" if title.startswith("density") else "best"
            panel.legend(loc=place, handletextpad=0.3, borderaxespad=0.2)
        _caption(figure, records, f"{records['sigma'].n_unique():,} sigma, {trials:,} trial{'s' * (trials > 1)} each")
    return figure


def _caption(figure: Figure, records: Recorded, last: str) -> None:
    """What was drawn, above the panels."""
    names = ("n_tokens", "hidden_dim", "base", "grid", "arithmetic", "distribution", "seed")
    caption(figure, titled({name: records[name][0] for name in names}, last))


def caption(figure: Figure, text: str) -> None:
    """Text above the panels."""
    figure.suptitle(text, fontsize=8, x=0.01, ha="left", parse_math=False)


def titled(first: dict[str, Any], last: str) -> str:
    """Of which snowballs a figure is, by the settings in a record, and a line of its own."""
    noise = "" if first["distribution"] == "gaussian" else f"{first['distribution']} noise, "
    seed = f", seed {first['seed']}" if "seed" in first else ""
    return (
        f"Snowballs of {first['n_tokens']:,} tokens x {first['hidden_dim']:,}, base {plain(first['base'])}, {noise}"
        f"rounded to {first['grid']} ({first['arithmetic']} arithmetic){seed}\n{last}"
    )


def plain(name: str) -> str:
    """A name that any font can draw."""
    return name.encode("ascii", "backslashreplace").decode()


WITHOUT_TIME: dict[str, Any] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF, the same bytes every time."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return [save_as(figure, stem.with_suffix(suffix)) for suffix in WITHOUT_TIME]


def save_as(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG (200 dpi) or PDF, as the file's name ends.

    Raises
    ------
    InvalidInput
        It ends otherwise, or cannot be written there.
    """
    check_figure(path)
    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=WITHOUT_TIME[suffix])
    write_whole(path, buffer.getvalue())
    return path


def check_figure(path: Path) -> None:
    """Raise InvalidInput where a figure's name says no format that it can have."""
    if path.suffix.lower() not in WITHOUT_TIME:
        raise InvalidInput(f"cannot draw {path}: a figure's name ends with {' or '.join(WITHOUT_TIME)}")
