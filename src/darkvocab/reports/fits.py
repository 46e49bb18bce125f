"""What a fit says: its table, its sentences, its figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .console import facts, number, show
from .figures import BLACK, BLUE, ORANGE, canvas, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISCORD = 0.01  # a statistic's p-value, times the number of statistics, below which it is named
STATISTICS = {
    "n_unique": "unique rows",
    "n_singletons": "singletons",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
}
LIKELIHOODS = {
    "partition": "of the whole partition (exchangeable partition probability)",
    "composite": "composite (populations as points of a Poisson process), its error from 200 drawn snowballs",
}


def statistic(name: str) -> str:
    """A statistic for people."""
    if name in STATISTICS:
        return STATISTICS[name]
    rank = int(name.rpartition("_")[2])
    return "largest population" if rank == 1 else f"{ordinal(rank)} largest"


def ordinal(n: int) -> str:
    """2nd, 3rd, 11th."""
    ending = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def chance(log10_p: float) -> str:
    """A probability for people, also where it is far below what a float can hold."""
    if log10_p > -4:
        return f"{10**log10_p:.2g}"
    whole = math.floor(log10_p)
    return f"{10 ** (log10_p - whole):.0f}e{whole}"


def _listed(populations: list[float], shown: int = 4) -> str:
    told = ", ".join(f"{p:,.0f}" for p in populations[:shown])
    return told + (", ..." if len(populations) > shown else "")


def _snowball(report: dict[str, Any]) -> str:
    settings = report["settings"]
    name = "Gaussian" if settings["distribution"] == "gaussian" else settings["distribution"].capitalize()
    return f"{name} snowball around {settings['base']}"


def sigma_told(report: dict[str, Any]) -> str:
    """Sigma and its interval."""
    low, high = report["interval"]
    level = f"{report['settings']['level']:.0%}"
    if report["sigma"] is None:
        return f"at most {high:.4g} ({level})" if low == 0 else f"at least {low:.4g} ({level})"
    return f"{report['sigma']:.4g}, {level} interval {low:.4g} to {'any' if high is None else f'{high:.4g}'}"


def sentences(report: dict[str, Any]) -> list[str]:
    """What the fit found, in words: whether the snowball explains the census, and what speaks against it."""
    target, bound = report["target"], report["bound"]
    populations = target["populations"]
    made = []
    if report["sigma"] is None:
        made.append("These tokens bound sigma on one side only: all share a row, or none do.")
    far = bound["log10_p"] is None or bound["log10_p"] < -6
    if far:
        least = "impossible" if bound["log10_p"] is None else f"p < {chance(bound['log10_p'])}"
        which = f"the {ordinal(bound['rank'])} largest group" if bound["rank"] > 1 else "the largest group"
        if bound["or_more"] and bound["rank"] > 1:
            which = f"each of the {bound['rank']:,} largest groups"
        tokens = "token" if bound["population"] == 1 else "tokens"
        holds = f"{bound['population']:,} {tokens} or {'more' if bound['or_more'] else 'fewer'}"
        groups = f"{len(populations):,} group{'s' * (len(populations) != 1)} with {_listed(populations)}"
        made.append(
            f"A {_snowball(report)} does not produce {groups}: {least} at every sigma (a bound; where it is largest, "
            f"sigma {bound['sigma']:.3g}, that {which} holds {holds})."
        )
    odd = [row for row in report["checks"] if row["p"] * len(report["checks"]) < DISCORD]
    if odd and not far:
        told = "; ".join(
            f"{statistic(row['statistic'])} {number(row['observed'])}, predicted {number(row['p5'])} to "
            f"{number(row['p95'])}"
            for row in odd[:4]
        )
        made.append(f"{_snowball(report)}s have it otherwise: {told} (5% to 95%).")
    if far or odd:
        if "expected" in report:
            expected = report["expected"]
            holes, alone = (number(round(expected[key]["mean"], 1)) for key in ("n_black_holes", "n_singletons"))
            made.append(
                f"The nearest, at sigma {report['sigma']:.4g}, has {_listed(expected['largest'])} tokens in its "
                f"likeliest cells, {holes} black holes, {alone} singletons."
            )
    else:
        made.append("Nothing in these statistics speaks against it.")
    if report["gap"]:
        found = report["gap"]
        a, b, c = (f"{tokens:,}" for tokens in found["tokens"])
        made.append(
            f"Component {found['column']:,} has {a} and {c} tokens at two values and {b} at one between them: noise "
            f"with one peak leaves such a gap with p < {chance(found['log10_p'])}, whatever its sigma and its base."
        )
    if report["association"]:
        found = report["association"]
        first, second = found["columns"]
        made.append(
            f"Components {first:,} and {second:,} leave their commonest values together, in {found['both']:,} of "
            f"{found['away'][0]:,} and {found['away'][1]:,} tokens: noise that is independent from component to "
            f"component does so with p < {chance(found['log10_p'])}, whatever its distribution."
        )
    for name, value in report.get("correlation_with_log_sigma", {}).items():
        if abs(value) > 0.95:
            made.append(
                f"Sigma and {name} trade off (correlation {value:.2f}): the data fix only a combination of them."
            )
    return made


def print_fit(report: dict[str, Any], to: Console) -> None:
    """A fit for people."""
    target, settings = report["target"], report["settings"]
    alone = "unknown" if target["n_singletons"] is None else f"{target['n_singletons']:,}"
    pairs = [
        ("target", f"{target['name']}: {len(target['populations']):,} black holes, {_listed(target['populations'])}"),
        ("tokens alone", alone + (f"; {target['remark']}" if target["remark"] else "")),
        (
            "snowball",
            f"{settings['distribution']} around {settings['base']} ({settings['hidden_dim']:,}), {settings['grid']}, "
            f"{settings['arithmetic']} arithmetic",
        ),
        ("sigma", sigma_told(report)),
        *([("offset", f"{report['offset']:.3g} of the grid's spacing")] if report["offset"] else []),
        *([("tokens", f"{report['n_tokens']:,}")] if "tokens" in settings["free"] else []),
        ("likelihood", f"{report['log_likelihood']:,.2f}, {LIKELIHOODS[report['likelihood']]}"),
    ]
    show(facts(pairs), to)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("observed", "predicted", "5%", "95%", "p"):
        table.add_column(heading, justify="right")
    for row in report["checks"]:
        cells = (number(row[key]) for key in ("observed", "mean", "p5", "p95"))
        table.add_row(statistic(row["statistic"]), *cells, f"{row['p']:.3g}")
    to.print()
    show(table, to)
    if report["hypotheses"]:
        to.print()
        show(_hypotheses(report["hypotheses"]), to)
    to.print()
    for sentence in sentences(report):
        to.print(sentence, soft_wrap=not to.is_terminal)


def _hypotheses(rows: list[dict[str, Any]]) -> Table:
    """The explanations side by side, by their log-likelihoods."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("explanation", overflow="fold")
    for heading in ("sigma", "log-likelihood", "to the best"):
        table.add_column(heading, justify="right")
    table.add_column("")
    known = [row["log_likelihood"] for row in rows if row["log_likelihood"] is not None]
    for row in rows:
        log = row["log_likelihood"]
        note = row.get("note", "")
        table.add_row(
            row["hypothesis"],
            "" if row["sigma"] is None else f"{row['sigma']:.4g}",
            "" if log is None else f"{log:,.1f}",
            "" if log is None else f"{log - max(known):,.1f}",
            Text(note),
        )
    return table


def fit_figure(report: dict[str, Any]) -> Figure:
    """Populations by rank beside what the fit predicts; the likelihood of sigma; and the ridge of sigma and offset."""
    target, settings = report["target"], report["settings"]
    alone = "unknown" if target["n_singletons"] is None else f"{target['n_singletons']:,}"
    caption = (
        f"{plain(target['name'])}: {len(target['populations']):,} black holes, tokens alone: {alone}\n"
        f"{plain(_snowball(report))}, {settings['grid']}, {settings['arithmetic']} arithmetic: "
        f"sigma {sigma_told(report)}"
    )
    n_panels = 2 + bool(report["ridge"])
    with canvas(caption, 3.2, 3.5 * n_panels) as figure:
        axes = figure.subplots(1, n_panels)
        _ranks(axes[0], report["ranks"])
        _profile(axes[1], report)
        if report["ridge"]:
            _ridge(axes[2], report)
    return figure


def _ranks(panel: Axes, rows: list[dict[str, Any]]) -> None:
    rank = np.array([row["rank"] for row in rows])
    low, high = (np.array([max(row[key], 0.7) for row in rows]) for key in ("p5", "p95"))
    panel.fill_between(rank, low, high, color=BLUE, alpha=0.25, linewidth=0, label="fit, 5% to 95%")
    panel.plot(rank, [max(row["mean"], 0.7) for row in rows], "-", color=BLUE, linewidth=1, label="fit, mean")
    seen = [row for row in rows if row["observed"]]
    panel.plot(
        [row["rank"] for row in seen],
        [row["observed"] for row in seen],
        "o",
        color=BLACK,
        markersize=3.5,
        label="observed",
    )
    panel.set_yscale("log")
    panel.set_ylim(0.7, None)
    panel.set_title("tokens in a group, by rank")
    panel.set_xlabel("rank of the group")
    panel.legend(loc="best")


def _profile(panel: Axes, report: dict[str, Any]) -> None:
    rows = [row for row in report["profile"] if row["log_likelihood"] is not None]
    top = max(row["log_likelihood"] for row in rows)
    panel.plot(
        [row["sigma"] for row in rows], [row["log_likelihood"] - top for row in rows], "-", color=BLUE, linewidth=1.2
    )
    low, high = report["interval"]
    low = max(low, rows[0]["sigma"])
    high = min(high if high is not None else math.inf, rows[-1]["sigma"])
    panel.axvspan(low, high, color=ORANGE, alpha=0.3, linewidth=0, label=f"{report['settings']['level']:.0%} interval")
    panel.set_title("log-likelihood of sigma, less its maximum")
    panel.set_xlabel("sigma (weight units, before rounding)")
    panel.legend(loc="best")


def _ridge(panel: Axes, report: dict[str, Any]) -> None:
    """The best sigma at each offset, and how much likelihood that costs: on a second axis."""
    rows = [row for row in report["ridge"] if row["sigma"] is not None]
    offset = [row["offset"] for row in rows]
    panel.plot(offset, [row["sigma"] for row in rows], "-", color=BLACK, linewidth=1.2, label="best sigma")
    panel.set_yscale("log")
    panel.set_title("sigma against the base's offset")
    panel.set_xlabel("offset of the base (grid spacings)")
    panel.set_ylabel("best sigma (weight units)")
    other = panel.twinx()
    other.spines["right"].set_visible(True)
    other.grid(False)
    top = max(row["log_likelihood"] for row in rows)
    other.plot(
        offset, [row["log_likelihood"] - top for row in rows], "--", color=ORANGE, linewidth=1.2, label="log-likelihood"
    )
    other.set_ylabel("log-likelihood, less its maximum")
    lines = [*panel.lines, *other.lines]
    panel.legend(lines, [str(line.get_label()) for line in lines], loc="best")
