"""Verified tokens: a table of what a model fails on, how well the weights named them, and a figure of both."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from rich.console import Console

from ..measures.verdict import Verdict
from ..text import printable
from .console import isolated, print_left, print_lines, show, table
from .document import PAGES
from .plot import BLACK, BLUE, ORANGE, Axis, Panel, Plot, Series, around

GROUPS = {"asked": "asked for", "control": "controls", "missed": "sample of the trained"}
LOOKS = {"missed": (BLUE, "o"), "control": (BLACK, "^"), "asked": (ORANGE, "s")}
VERIFIED = ("id", "token", "grade", "P_max", "best rank", "instead")
LEAST = 1e-8  # probability that a figure shows at the lowest


def groups(verdict: Verdict) -> list[list[str]]:
    """Return a row for each group of tokens: how many, how many verified, by which criterion, and the median P_max."""
    rows = []
    tokens = verdict.tokens.sort("grade")  # untrained before weak
    for group, name in GROUPS.items():
        for part in tokens.filter(pl.col("group") == group).partition_by("grade", maintain_order=True):
            p: Any = part["p_max"]
            counts = (len(part), part["verified"].sum(), (p < 0.01).sum(), (p < 0.001).sum(), part["glitch"].sum())
            of = f"{name}, {part['grade'][0]}" if group == "asked" else name
            median = p.median()
            rows.append([of, *(f"{count:,}" for count in counts), "" if median is None else f"{median:.3g}"])
    return rows


def sentences(verdict: Verdict) -> Iterator[str]:
    """Yield how tokens were verified, and how well the grades of the weights agree with it."""
    limits = ", ".join(f"{p:.3g} ({kind})" for kind, p in verdict.thresholds.items())
    if verdict.n_controls:
        yield f"verified: P_max below the 1% quantile of {verdict.n_controls:,} controls, {limits}"
    else:
        yield f"verified: P_max below {limits}, as there are no controls"
    if verdict.n_undecided:
        yield (
            f"{verdict.n_undecided:,} are undecided: the server does not list them among its likeliest tokens, and the "
            "bound that follows from it is above the limit"
        )
    if verdict.n_not_asked:
        yield (
            f"{verdict.n_not_asked:,} were not asked for: the server takes text, and no text becomes them in the frames"
        )
    if verdict.precision:
        share = verdict.precision
        said = f"{share.n:,.0f} of {share.of:,.0f} ({share.low:.0%} to {share.high:.0%} with 90%)"
        yield f"of the tokens graded untrained or weak, the model fails on {said}"
    if verdict.recall:
        low, high = verdict.recall.low, verdict.recall.high
        yield f"of the tokens that the model fails on, the weights name between {low:.0%} and {high:.0%}"
    if verdict.n_missed:
        low, high = verdict.n_missed
        yield f"it fails on {low:,.0f} to {high:,.0f} that the weights call trained (90%, from the sample)"


def print_verdict(verdict: Verdict, to: Console, shown: int) -> None:
    """Print the groups, what follows from them, and the verified tokens, the least likely first."""
    show(table(PAGES["verify"]["headings"], groups(verdict)), to)
    to.print()
    print_lines(sentences(verdict), to)
    rows = verified_rows(verdict)
    if rows:
        show(table(VERIFIED, rows[:shown], left=("token", "instead")), to, apart=True)
        print_left(len(rows) - shown, "verified; --json lists them all", to)


def verified_rows(verdict: Verdict) -> list[list[str]]:
    """Return a row for each verified token but controls, the least likely first: `VERIFIED`."""
    chosen = verdict.tokens.filter(pl.col("verified") & (pl.col("group") != "control")).sort("p_max", "token")
    columns = chosen.select("token", "text", "grade", "bound", "p_max", "best_rank", "instead")
    return [
        [str(token), _text(text), grade, f"{'< ' * bound}{p:.2g}", "" if rank is None else f"{rank:,}", _text(instead)]
        for token, text, grade, bound, p, rank, instead in columns.iter_rows()
    ]


def _text(text: str | None) -> str:
    return "" if text is None else isolated(printable(text))


def verdict_plot(verdict: Verdict) -> Plot:
    """Draw P_max of every token that was asked for against its place in the order of the weights."""
    series = []
    for group, (colour, mark) in LOOKS.items():
        part = verdict.tokens.filter(pl.col("group") == group).drop_nulls("p_max")
        if len(part):
            look: dict[str, Any] = {"line": "", "size": 3.0, "alpha": 0.7, "hollow": group == "control", "mark": mark}
            p = part["p_max"].clip(LEAST, 1)
            series.append(Series(x=part["order"], y=p, label=GROUPS[group], colour=colour, **look))
    x = around(verdict.tokens["order"], "place by the weights, the darkest first", "log")
    line = Series(x=x.ends, y=[verdict.thresholds["all"]] * 2, colour="#808080", line=":", label="below: verified")
    y = Axis(ends=(LEAST / 2, 2.0), scale="log", label="P_max")
    title = "largest probability of the token, over frames and places"
    panel = Panel(title=title, x=x, y=y, series=[line, *series], legend="lower right")
    n = verdict.tokens["token"].n_unique()
    return Plot(panels=[panel], height=4.2, caption=f"{n:,} tokens that a model was asked to repeat")
