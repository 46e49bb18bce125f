"""Tables of how checkpoints change: a diff of two and a repair, from their JSON, and a series."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console

from ..numerics import GRIDS
from .console import facts, print_left, print_lines, show, token_texts
from .document import WORDS, facts_of, table_of
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
            show(table_of("movers", part=part, shown=shown), to, apart=True)
            print_left(part["n_moved"] - shown, "moved tokens; --csv FILE lists them all", to)
        changes = [change for change in part["black_holes"] if change["kind"] != "kept"]
        if changes:
            show(table_of("changes", changes=changes[:MOST_CHANGES]), to, apart=True)
            print_left(len(changes) - MOST_CHANGES, "changed black holes; --json lists them all", to)


def print_repair(report: dict[str, Any], to: Console) -> None:
    """Print a repair: what was or would be changed, by which means, and what was read again afterwards."""
    show(facts(facts_of("repair", report=report, how=WORDS["repair"][report["how"]])), to)


def print_series(series: Series, to: Console) -> None:
    """Print each checkpoint's census and changes, events, and the black holes of the last."""
    bytes_read = series.checkpoints["bytes_read"].drop_nulls().to_list()
    values: dict[str, Any] = {"summary": series.summary, "last": series.checkpoints.row(-1, named=True)}
    values |= {"events": event_counts(series.summary["events"]), "bytes_read": sum(bytes_read) if bytes_read else None}
    show(facts(facts_of("series", **values)), to)
    show(table_of("checkpoints", rows=series.checkpoints.to_dicts()), to, apart=True)
    print_lines([WORDS["notes"]["series"]], to)
    happened = series.events.filter(series.events["kind"] != "start")
    print_events(happened, lambda event: f"{event['name']}  ", "--out and --json", to)
    if series.black_holes.height:
        texts = series.tokens["text"]
        rows = series.black_holes.head(SHOWN_HOLES).to_dicts()
        show(table_of("series_holes", rows=rows, named=partial(_named, texts)), to, apart=True)
        print_left(series.black_holes.height - SHOWN_HOLES, "black holes; --out and --json have them all", to)


def _named(texts: pl.Series, ids: list[int]) -> str:
    return token_texts(ids, [texts[token] for token in ids[:SHOWN_TOKENS]], SHOWN_TOKENS)
