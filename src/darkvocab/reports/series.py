"""Tables of a series of checkpoints, from what `darkvocab history` measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from .console import facts, print_left, show, table, token_texts
from .evolution import told

if TYPE_CHECKING:
    import polars as pl

SHOWN_EVENTS, SHOWN_HOLES, SHOWN_TOKENS = 20, 20, 8
HEADINGS = {
    **{"checkpoint": "name", "tokens": "n_tokens", "unique": "n_unique", "C": "n_black_holes"},
    **{"P": "black_hole_population", "largest": "largest_bh", "moved": "n_moved", "equal": "n_equal"},
    **{"max step": "max_move_l_inf_steps", "born": "n_born", "split": "n_split", "merged": "n_merged"},
    **{"vanished": "n_vanished", "gained": "n_gained", "lost": "n_lost"},
}


def print_series(
    checkpoints: pl.DataFrame,
    events: pl.DataFrame,
    black_holes: pl.DataFrame,
    tokens: pl.DataFrame,
    summary: dict[str, Any],
    to: Console,
) -> None:
    """Print each checkpoint's census and changes, events, and the black holes of the last."""
    show(facts(_facts(checkpoints, summary)), to)
    to.print()
    cells = []
    for row in checkpoints.iter_rows(named=True):
        same = f"as {row['identical_to']}" if row["identical_to"] is not None else ""
        cells.append([*(_cell(row[column]) for column in HEADINGS.values()), row["not_compared"] or same])
    show(table((*HEADINGS, ""), cells, left=("checkpoint", "")), to)
    to.print(
        "moved, equal: rows against the checkpoint before; max step: the farthest in one component, in grid steps",
        soft_wrap=not to.is_terminal,
    )
    _print_events(events, to)
    if black_holes.height:
        to.print()
        show(_holes(black_holes, tokens), to)
        print_left(black_holes.height - SHOWN_HOLES, "black holes; --out and --json have them all", to)


def _facts(checkpoints: pl.DataFrame, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    n = summary["n_checkpoints"]
    last = checkpoints.row(-1, named=True)
    yield "series", f"{n:,} checkpoint{'s' * (n != 1)}, {summary['n_distinct']:,} with other rows than all before"
    yield "embedding", f"{last['n_tokens']:,} tokens x {last['hidden_dim']:,}, {last['grid']}, at the last"
    yield "never moved", f"{summary['n_never_moved']:,} tokens"
    frozen = sorted(summary["frozen_since"], key=lambda item: -item["n_tokens"])[:4]
    yield "frozen since", ", ".join(f"{item['name']}: {item['n_tokens']:,}" for item in frozen)
    kinds = {kind: n for kind, n in summary["events"].items() if kind != "start"}
    yield "events", ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()) or "none"
    read = checkpoints["bytes_read"].drop_nulls().to_list()
    if read:
        yield "read", f"{sum(read) / 1e6:,.1f} MB from the Hub"


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,}"


def _print_events(events: pl.DataFrame, to: Console) -> None:
    happened = events.filter(events["kind"] != "start")
    if not happened.height:
        return
    to.print()
    for event in happened.head(SHOWN_EVENTS).iter_rows(named=True):
        to.print(f"{event['name']}  {told(event)}", soft_wrap=True)
    print_left(happened.height - SHOWN_EVENTS, "events; --out and --json have them all", to)


def _holes(black_holes: pl.DataFrame, tokens: pl.DataFrame) -> Table:
    texts = tokens["text"]
    rows = []
    for row in black_holes.head(SHOWN_HOLES).iter_rows(named=True):
        ids = row["tokens"]
        hole = {"token_ids": ids, "tokens": [texts[token] for token in ids[:SHOWN_TOKENS]], "population": len(ids)}
        cells = [str(row["hole"]), f"{row['population']:,}", row["born"], row["joined"], row["frozen"]]
        rows.append([*cells, token_texts(hole, SHOWN_TOKENS)])
    lefts = ("born", "these since", "frozen since", "tokens")
    return table(("#", "population", *lefts), rows, left=lefts)
