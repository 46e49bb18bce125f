"""Figures for print: labelled, legible in grey, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import write_whole

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
PANELS: tuple[tuple[str, list[tuple[str, str | None, str, str]]], ...] = (
    ("black holes, C", [("n_black_holes", None, BLUE, "o")]),
    ("tokens in black holes, P", [("black_hole_population", None, BLUE, "o")]),
    ("singletons", [("n_singletons", None, BLUE, "o")]),
    ("tokens in the largest group", [("largest_bh", None, BLUE, "o")]),
    (
        "L-infinity among black holes (weight units)",
        [("median_l_inf", "median", ORANGE, "s"), ("mean_l_inf", "mean", BLUE, "o"), ("max_l_inf", "max", BLACK, "^")],
    ),
    (
        "L-infinity among black holes (grid steps)",
        [
            ("median_l_inf_steps", "median", ORANGE, "s"),
            ("mean_l_inf_steps", "mean", BLUE, "o"),
            ("max_l_inf_steps", "max", BLACK, "^"),
        ],
    ),
)


def sweep_figure(frame: pl.DataFrame) -> Figure:
    """C, P, singletons, largest group and L-infinity against sigma, with sigma over the base's median ulp on top.

    One trial at a sigma: a point a record. Several: their mean, and a band from the 10th to the 90th percentile.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 7.6), layout="constrained")
        axes = figure.subplots(3, 2, sharex=True).ravel()
        sigma = frame["sigma"].to_numpy()
        trials = len(frame) // frame["sigma"].n_unique()
        spread = sigma.max() / sigma.min() if sigma.min() > 0 else 0.0
        for panel, (title, series) in zip(axes, PANELS, strict=True):
            for column, label, colour, marker in series:
                _plot(panel, frame, column, label, colour, marker, trials)
            panel.set_title(title)
            panel.set_ylim(0, 1.06 * max(panel.dataLim.ymax, 1e-300) if np.isfinite(panel.dataLim.ymax) else 1)
            if spread > 30:
                panel.set_xscale("log")
            if len(series) > 1:
                panel.legend(loc="best", reverse=True, handletextpad=0.3, borderaxespad=0.2, markerscale=2)
        for panel in axes[-2:]:
            panel.set_xlabel("sigma (weight units, before rounding)")
        ratio = (frame["sigma_over_median_ulp"] / frame["sigma"]).drop_nans()
        if len(ratio) and sigma.max() > 0:
            per_ulp = float(ratio.median())  # type: ignore[arg-type]
            for panel in axes[:2]:
                top = panel.secondary_xaxis("top", functions=(lambda s: s * per_ulp, lambda u: u / per_ulp))
                top.set_xlabel("sigma / median ulp of the base")
        figure.suptitle(_caption(frame), fontsize=8, x=0.01, ha="left", parse_math=False)
    return figure


def _plot(
    panel: Axes, frame: pl.DataFrame, column: str, label: str | None, colour: str, marker: str, trials: int
) -> None:
    import polars as pl

    if "l_inf" in column:  # between fewer than two black holes there is no distance, whatever the column says
        frame = frame.filter(pl.col("n_black_holes") > 1)
    points = (
        frame.group_by("sigma")
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
    panel.plot(sigma, mean, f"{marker}-", color=colour, markersize=2.5, linewidth=1, label=label)


def _caption(frame: pl.DataFrame) -> str:
    first = frame.row(0, named=True)
    points = frame["sigma"].n_unique()
    trials = len(frame) // points
    shown = "a point each" if trials == 1 else f"{trials:,} trials each: mean, 10th to 90th percentile"
    return (
        f"Snowballs of {first['n_tokens']:,} tokens x {first['hidden_dim']:,}, base {_plain(first['base'])}, "
        f"rounded to {first['grid']} ({first['arithmetic']} arithmetic), seed {first['seed']}\n"
        f"{points:,} sigma, {shown}"
    )


def _plain(name: str) -> str:
    """A name that any font can draw."""
    return name.encode("ascii", "backslashreplace").decode()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF, the same bytes every time."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    plain: dict[str, Any] = {
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    for suffix, metadata in plain.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=metadata)
        write_whole(stem.with_suffix(suffix), buffer.getvalue())
        written.append(stem.with_suffix(suffix))
    return written
