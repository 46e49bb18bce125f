"""Report a fit: table, sentences and figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from .document import labels, lines_of, phrase, print_text
from .plot import BLACK, BLUE, ORANGE, canvas, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..snowballs.fit.run import FitResult

FAR_LOG10_P = -6  # a bound on log10 of the probability of the census is reported below this
TRADE_OFF = 0.95  # correlation with sigma beyond which only a combination is known
LEAST_SHOWN = 0.7  # tokens: stands for 0 on a logarithmic axis
DISCORD = 0.05  # a statistic's p-value, times the number of statistics, below which it is named
STATISTIC_LABELS = labels("n_unique", "n_singletons", "n_black_holes", "black_hole_population")


def statistic(name: str) -> str:
    """Return the label of a statistic."""
    if name in STATISTIC_LABELS:
        return STATISTIC_LABELS[name]
    rank = int(name.rpartition("_")[2])
    return "largest population" if rank == 1 else f"{ordinal(rank)} largest"


def ordinal(n: int) -> str:
    """Return 2nd, 3rd, 11th, ..."""
    ending = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def chance(log10_p: float) -> str:
    """Format a probability, even one far below the range of floats."""
    if log10_p > -4:
        return f"{10**log10_p:.2g}"
    whole = math.floor(log10_p)
    return f"{10 ** (log10_p - whole):.0f}e{whole}"


def _listed(populations: Sequence[float], shown: int = 4) -> str:
    listed = ", ".join(f"{p:,.0f}" for p in populations[:shown])
    return listed + (", ..." if len(populations) > shown else "")


def _alone(result: FitResult) -> str:
    n_singletons = result.target.partition.n_singletons
    return "unknown" if n_singletons is None else f"{n_singletons:,}"


def _snowball(result: FitResult) -> str:
    settings = result.settings
    return f"{settings.distribution.capitalize()} snowball around {settings.base}"


def sentences(result: FitResult) -> list[str]:
    """Say in words whether the snowball explains the census, and what speaks against it."""
    p = result.bound.log10_p
    return lines_of(
        "fit_sentences",
        result=result,
        is_far=p < FAR_LOG10_P,
        odd=[row for row in result.checks if row.p * len(result.checks) < DISCORD],
        beyond_all=[row for row in result.checks if row.p <= 2 / (1 + result.settings.draws)],
        snowball=_snowball(result),
        populations=result.target.partition.populations.tolist(),
        least="impossible" if math.isinf(p) else f"p < {chance(p)}",
        trade_off=TRADE_OFF,
        **{"first": _listed, "ordinal": ordinal, "statistic": statistic, "chance": chance},
    )


def print_fit(result: FitResult, to: Console) -> None:
    populations = result.target.partition.populations.tolist()
    values = {"populations": populations, "alone": _alone(result), "sentences": sentences(result)}
    print_text("fit", to, result=result, **values, first=_listed, statistic=statistic)


def fit_figure(result: FitResult) -> Figure:
    """Draw observed and predicted populations by rank, the likelihood of sigma, and the ridge of sigma and offset."""
    n_holes = len(result.target.partition.populations)
    caption = (
        f"{plain(result.target.name)}: {n_holes:,} black holes, tokens alone: {_alone(result)}\n"
        f"{plain(_snowball(result))}, {result.settings.grid}, {result.settings.arithmetic} arithmetic: "
        f"sigma {phrase('fitted_sigma', result=result)}"
    )
    n_panels = 2 + bool(result.ridge)
    with canvas(caption, 3.2, 3.5 * n_panels) as figure:
        axes = figure.subplots(1, n_panels)
        _ranks(axes[0], result.ranks)
        _profile(axes[1], result)
        if result.ridge:
            _ridge(axes[2], result.ridge)
    return figure


def _ranks(panel: Axes, rows: list[Any]) -> None:
    rank = [row.rank for row in rows]
    low, high, mean = np.maximum([(row.p5, row.p95, row.mean) for row in rows], LEAST_SHOWN).T
    panel.fill_between(rank, low, high, color=BLUE, alpha=0.25, linewidth=0, label="fit, 5% to 95%")
    panel.plot(rank, mean, "-", color=BLUE, linewidth=1, label="fit, mean")
    seen = [row for row in rows if row.observed]
    observed = [row.observed for row in seen]
    panel.plot([row.rank for row in seen], observed, "o", color=BLACK, markersize=3.5, label="observed")
    panel.set(yscale="log", ylim=(LEAST_SHOWN, None), title="tokens in a group, by rank", xlabel="rank of the group")
    panel.legend(loc="best")


def _profile(panel: Axes, result: FitResult) -> None:
    rows = [row for row in result.profile if math.isfinite(row.log_likelihood)]
    top = max(row.log_likelihood for row in rows)
    panel.plot([row.sigma for row in rows], [row.log_likelihood - top for row in rows], "-", color=BLUE, linewidth=1.2)
    ends = np.clip(result.interval, rows[0].sigma, rows[-1].sigma)
    panel.axvspan(*ends, color=ORANGE, alpha=0.3, linewidth=0, label=f"{result.settings.level:.0%} interval")
    panel.set(title="log-likelihood of sigma, less its maximum", xlabel="sigma (weight units, before rounding)")
    panel.legend(loc="best")


def _ridge(panel: Axes, ridge: list[Any]) -> None:
    """Draw the best sigma at each offset and, on a second axis, the likelihood that it loses."""
    rows = [row for row in ridge if row.sigma is not None]
    offset = [row.offset for row in rows]
    panel.plot(offset, np.array([row.sigma for row in rows]), "-", color=BLACK, linewidth=1.2, label="best sigma")
    panel.set(yscale="log", title="sigma against the base's offset")
    panel.set(xlabel="offset of the base (grid spacings)", ylabel="best sigma (weight units)")
    other = panel.twinx()
    other.spines["right"].set_visible(True)
    other.grid(False)
    top = max(row.log_likelihood for row in rows)
    cost = [row.log_likelihood - top for row in rows]
    other.plot(offset, cost, "--", color=ORANGE, linewidth=1.2, label="log-likelihood")
    other.set_ylabel("log-likelihood, less its maximum")
    lines = [*panel.lines, *other.lines]
    panel.legend(lines, [str(line.get_label()) for line in lines], loc="best")
