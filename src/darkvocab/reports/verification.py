"""Report verified tokens: a table of what a model fails on, the precision and recall of the weights, and a plot."""

from typing import Any

import polars as pl
from rich.console import Console

from ..measures.verdict import Verification
from .document import lines_of, print_text, rows_of
from .plot import BLACK, BLUE, ORANGE, Axis, Curve, Panel, Plot, around

GROUPS = {"asked": "asked for", "control": "controls", "missed": "sample of the trained"}
GROUP_LOOKS = {"missed": (BLUE, "o"), "control": (BLACK, "^"), "asked": (ORANGE, "s")}
VERIFIED = ("id", "token", "grade", "P_max", "best rank", "instead")
LEAST = 1e-8  # the smallest probability in a plot


def groups(verdict: Verification) -> list[list[str]]:
    """Return a row for each group of tokens: numbers in all, verified and below each limit, and the median P_max."""
    tokens = verdict.tokens.sort("grade")  # untrained before weak
    p = pl.col("p_max")
    counts = {"n": pl.len(), "below_hundredth": (p < 0.01).sum(), "below_thousandth": (p < 0.001).sum()}
    parts = tokens.group_by("group", "grade", maintain_order=True).agg(
        pl.col("verified", "glitch").sum(), median=p.median(), **counts
    )
    return rows_of("verified_groups", parts=parts.to_dicts(), groups=GROUPS)


def sentences(verdict: Verification) -> list[str]:
    """Return sentences on the criterion, and on how well the grades of the weights agree with it."""
    return lines_of("verification", verdict=verdict)


def print_verdict(verdict: Verification, to: Console, shown: int) -> None:
    """Print the groups, sentences on them, and the verified tokens, the least likely first."""
    values = {"groups": groups(verdict), "headings": VERIFIED, "rows": verified_rows(verdict)}
    print_text("verification", to, verdict=verdict, shown=shown, **values)


def verified_rows(verdict: Verification) -> list[list[str]]:
    """Return a row with the columns `VERIFIED` for each verified token but controls, the least likely first."""
    chosen = verdict.tokens.filter(pl.col("verified") & (pl.col("group") != "control")).sort("p_max", "token")
    return rows_of("verified", tokens=chosen.to_dicts())


def verdict_plot(verdict: Verification) -> Plot:
    """Plot P_max of every token that was asked for against its rank by the weights."""
    series = []
    for group, (colour, mark) in GROUP_LOOKS.items():
        part = verdict.tokens.filter(pl.col("group") == group).drop_nulls("p_max")
        if len(part):
            look: dict[str, Any] = {"line": "", "size": 3.0, "alpha": 0.7, "hollow": group == "control", "mark": mark}
            p = part["p_max"].clip(LEAST, 1)
            series.append(Curve(x=part["order"], y=p, label=GROUPS[group], colour=colour, **look))
    x = around(verdict.tokens["order"], "place by the weights, the darkest first", "log")
    line = Curve(x=x.ends, y=[verdict.thresholds["all"]] * 2, colour="#808080", line=":", label="below: verified")
    y = Axis(ends=(LEAST / 2, 2.0), scale="log", label="P_max")
    title = "largest probability of the token, over frames and places"
    panel = Panel(title=title, x=x, y=y, series=[line, *series], legend="lower right")
    n = verdict.tokens["token"].n_unique()
    return Plot(panels=[panel], height=4.2, caption=f"{n:,} tokens that a model was asked to repeat")
