"""Tables of a neighbourhood: facts, degrees, and the largest components of tokens that touch."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from ..text import printable
from .console import SHOWN_TOKENS, facts, print_left, show, table, token_texts

MOST_DEGREES = 20  # lines of the table
MOST_COMPONENTS = 20


def print_neighbourhood(report: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the table of degrees, and the components with the most tokens."""
    show(facts(_facts(report)), to)
    if not report["n_pairs"]:
        return
    to.print()
    _print_degrees(report["degrees"], to)
    rows = []
    for component in report["components"][:MOST_COMPONENTS]:
        numbers = (f"{component[key]:,}" for key in ("number", "n_tokens", "n_rows", "n_black_holes"))
        texts = token_texts({**component, "population": component["n_tokens"]}, shown)
        rows.append([*numbers, texts])
    to.print()
    show(table(("#", "tokens", "rows", "black holes", ""), rows), to)
    left = report["components"][MOST_COMPONENTS:]
    n_tokens = sum(component["n_tokens"] for component in left)
    print_left(len(left), f"components with {n_tokens:,} tokens; --json lists them all", to)


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    core = len(report["cluster"]["core"])
    outliers = len(report["cluster"]["outliers"])
    smoke = (
        f"{core + outliers:,} tokens around the black holes (component {report['cluster']['component']:,}): core "
        f"{core:,}, in a black hole or touching one; outliers {outliers:,}, by way of others"
        if core
        else "none: there are no black holes"
    )
    return [
        ("source", printable(report["source"]["path"])),
        ("tensor", f"{printable(report['tensor'])} (found {report['chosen']})"),
        ("tokens", f"{report['n_tokens']:,} in {report['n_unique']:,} distinct rows of {report['hidden_dim']:,}"),
        ("touching", f"{report['touching']} in every column, on {report['grid']}"),
        ("pairs", f"{report['n_pairs']:,} of rows, {report['n_token_pairs']:,} of tokens (equal rows included)"),
        ("components", f"{report['n_components']:,}, of which {report['n_isolated']:,} rows that touch no other"),
        ("black holes", f"{report['n_black_holes']:,} with {report['black_hole_population']:,} tokens"),
        ("frozen smoke", smoke),
    ]


def _print_degrees(degrees: list[list[int]], to: Console) -> None:
    """Print how many rows touch so many others, and how many tokens those rows stand for."""
    cells = ([f"{number:,}" for number in row] for row in degrees[:MOST_DEGREES])
    show(table(("degree", "rows", "tokens"), cells), to)
    if left := degrees[MOST_DEGREES:]:
        rows, tokens = (sum(row[at] for row in left) for at in (1, 2))
        to.print(
            f"and {len(left):,} more degrees up to {left[-1][0]:,}, of {rows:,} rows with {tokens:,} tokens; "
            "--json lists them all"
        )
