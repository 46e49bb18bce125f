"""Tables of how checkpoints change: a diff of two and a repair, from their JSON, and a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table

from ..numerics import GRIDS
from ..text import printable
from .console import cell, facts, isolated, print_left, print_lines, show, table, token_texts
from .document import WORDS, facts_of
from .evolution import event_counts, print_events

if TYPE_CHECKING:
    from ..checkpoints.series import Series

MOST_CHANGES = 40
SHOWN_HOLES, SHOWN_TOKENS = 20, 8


def print_diff(report: dict[str, Any], to: Console, shown: int) -> None:
    """Print a diff: facts of each matrix, the farthest movers, and changes of black holes."""
    show(facts(facts_of("diff", report=report, shown=shown)), to)
    for part in report["matrices"]:
        show(facts(facts_of("matrix_diff", part=part, grids=GRIDS)), to, apart=True)
        if part["movers"]:
            show(_movers(part, shown), to, apart=True)
            print_left(part["n_moved"] - shown, "moved tokens; --csv FILE lists them all", to)
        changes = [change for change in part["black_holes"] if change["kind"] != "kept"]
        if changes:
            show(_changes(changes[:MOST_CHANGES]), to, apart=True)
            print_left(len(changes) - MOST_CHANGES, "changed black holes; --json lists them all", to)


def _movers(part: dict[str, Any], shown: int) -> Table:
    rows = []
    for token in part["movers"][:shown]:
        texts = dict.fromkeys(isolated(printable(text)) for name in "ab" if (text := token[name]) is not None)
        lengths = [f"{token['l_inf_steps']:,}", f"{token['l_inf']:.4g}", f"{token['euclidean']:.4g}"]
        rows.append([str(token["token_id"]), " | ".join(texts), *lengths])
    return table(("token", "text", "steps", "L-inf", "Euclidean"), rows, left=("text",))


def _changes(changes: list[dict[str, Any]]) -> Table:
    rows = []
    for change in changes:
        came = _named("from A", change["came_from"]), _named("into B", change["went_to"])
        what = (
            f"{sign}{len(tokens):,}{whence}"
            for sign, tokens, whence in zip("+-", (change["joined"], change["left"]), came, strict=True)
            if tokens
        )
        numbers = ("" if change[name] is None else f"#{change[name]}" for name in "ab")
        populations = f"{change['population_a']:,} -> {change['population_b']:,}"
        rows.append([change["kind"], *numbers, populations, "   ".join(what)])
    return table(("black hole", "in A", "in B", "tokens", ""), rows, left=("black hole", ""))


def _named(word: str, holes: list[list[int]], most: int = 4) -> str:
    """Name black holes of the other side, and how many tokens come from or go to each."""
    named = [f"{word} #{number} ({n:,})" for number, n in holes[:most]]
    return "".join(f" {hole}" for hole in [*named, *(["..."] if len(holes) > most else [])])


def print_repair(report: dict[str, Any], to: Console) -> None:
    """Print a repair: what was or would be changed, by which means, and what was read again afterwards."""
    show(facts(facts_of("repair", report=report, how=WORDS["repair"][report["how"]])), to)


def print_series(series: Series, to: Console) -> None:
    """Print each checkpoint's census and changes, events, and the black holes of the last."""
    bytes_read = series.checkpoints["bytes_read"].drop_nulls().to_list()
    values: dict[str, Any] = {"summary": series.summary, "last": series.checkpoints.row(-1, named=True)}
    values |= {"events": event_counts(series.summary["events"]), "bytes_read": sum(bytes_read) if bytes_read else None}
    show(facts(facts_of("series", **values)), to)
    cells = []
    for row in series.checkpoints.iter_rows(named=True):
        same = f"as {row['identical_to']}" if row["identical_to"] is not None else ""
        cells.append([*(cell(row[column]) for column in WORDS["series"]), row["not_compared"] or same])
    show(table((*WORDS["series"].values(), ""), cells, left=("checkpoint", "")), to, apart=True)
    print_lines([WORDS["notes"]["series"]], to)
    happened = series.events.filter(series.events["kind"] != "start")
    print_events(happened, lambda event: event["name"], "--out and --json", to)
    if series.black_holes.height:
        show(_holes(series.black_holes, series.tokens["text"]), to, apart=True)
        print_left(series.black_holes.height - SHOWN_HOLES, "black holes; --out and --json have them all", to)


def _holes(black_holes: pl.DataFrame, texts: pl.Series) -> Table:
    rows = []
    for row in black_holes.head(SHOWN_HOLES).iter_rows(named=True):
        ids = row["tokens"]
        cells = [str(row["hole"]), f"{row['population']:,}", row["born"], row["joined"], row["frozen"]]
        rows.append([*cells, token_texts(ids, [texts[token] for token in ids[:SHOWN_TOKENS]], SHOWN_TOKENS)])
    lefts = ("born", "these since", "frozen since", "tokens")
    return table(("#", "population", *lefts), rows, left=lefts)
