"""Tables of how checkpoints change: a diff of two and a repair, from their JSON, and a series."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table

from ..numerics import GRIDS
from ..text import printable
from .console import cell, facts, isolated, left_out, print_left, print_lines, show, table, token_texts
from .document import WORDS
from .evolution import event_counts, print_events

if TYPE_CHECKING:
    from ..checkpoints.series import Series

MOST_CHANGES = 40
SHOWN_HOLES, SHOWN_TOKENS = 20, 8


def print_diff(report: dict[str, Any], to: Console, shown: int) -> None:
    """Print a diff: facts of each matrix, the farthest movers, and changes of black holes."""
    pairs = [("A", printable(report["a"])), ("B", printable(report["b"])), ("texts", _texts(report["texts"], shown))]
    pairs += [("", note) for note in report["notes"]]
    show(facts(pairs), to)
    for part in report["matrices"]:
        show(facts(_matrix_facts(part)), to, apart=True)
        if part["movers"]:
            show(_movers(part, shown), to, apart=True)
            print_left(part["n_moved"] - shown, "moved tokens; --csv FILE lists them all", to)
        changes = [change for change in part["black_holes"] if change["kind"] != "kept"]
        if changes:
            show(_changes(changes[:MOST_CHANGES]), to, apart=True)
            print_left(len(changes) - MOST_CHANGES, "changed black holes; --json lists them all", to)


def _texts(texts: dict[str, Any] | None, shown: int) -> str:
    if texts is None:
        return "not compared: no tokenizer beside A, or beside B"
    only = f"; {texts['n_only_a']:,} ids with a text in A alone, {texts['n_only_b']:,} in B alone"
    only = only if texts["n_only_a"] or texts["n_only_b"] else ""
    if not texts["n_different"]:
        return f"the same for every id{' that has one in both' if only else ''}{only}"
    named = "  ".join(
        f"{token['token_id']} {isolated(printable(token['a']))} | {isolated(printable(token['b']))}"
        for token in texts["different"][:shown]
    )
    more = "  ..." if texts["n_different"] > shown else ""
    return f"{texts['n_different']:,} ids with another text: {named}{more}{only}"


def _matrix_facts(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    a = part["a"]
    b = part["b"]
    rounded = [
        f"{name} {'rounded' if side['stored_grid'] in GRIDS else 'dequantised'} from {side['stored_grid']}"
        for name, side in (("A", a), ("B", b))
        if side["stored_grid"] != part["grid"]
    ]
    equality = "bit for bit" if part["equality"] == "bits" else "by value"
    same = f", of which {part['n_same_bits']:,} bit for bit" if equality == "by value" else ""
    yield f"{part['matrix']} matrix", " | ".join(dict.fromkeys(printable(side["tensor"]) for side in (a, b)))
    on = ", ".join([part["grid"], *rounded])
    yield "compared", f"{part['n_common']:,} rows of {a['hidden_dim']:,}, {equality}, on {on}"
    yield "equal", f"{part['n_equal']:,}{same}"
    yield "moved", f"{part['n_moved']:,}"
    if moved := part["moved"]:
        for name, key in (("L-inf in steps", "l_inf_steps"), ("L-inf", "l_inf"), ("Euclidean", "euclidean")):
            yield name, f"median {moved[key]['median']:,.4g}   max {moved[key]['max']:,.4g}"
    if part["skipped"]:
        yield "left out", left_out(part["skipped"])
    for name in "ab":
        if n := part[f"n_only_{name}"]:
            yield f"only in {name.upper()}", f"{n:,}"
    yield "black holes C", f"{a['n_black_holes']:,} -> {b['n_black_holes']:,}"
    yield "population P", f"{a['black_hole_population']:,} -> {b['black_hole_population']:,}"
    if counts := ", ".join(f"{n:,} {kind}" for kind, n in part["counts"].items() if n):
        yield "of black holes", counts


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
    show(facts(_repair_facts(report)), to)


def _repair_facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    jitter = report["jitter_steps"]
    steps = "a step" if jitter == 1 else f"1 to {jitter:,} steps"
    around = "" if report["how"] == "gaussian" else f", each component {steps} up or down"
    is_dry = report["dry_run"]
    yield "source", printable(report["source"])
    yield "output", printable(report["out"]) + (" (dry run: nothing is written)" if is_dry else "")
    yield "fresh rows", f"{WORDS['repair'][report['how']]}{around}; seed {report['seed']}"
    for part in report["matrices"]:
        ids = " ".join(map(str, part["token_ids"][:12])) + (" ..." if part["n_repaired"] > 12 else "")
        yield f"{part['matrix']} matrix", " and ".join(map(printable, part["tensors"]))
        yield "repaired", f"{part['n_repaired']:,} of {part['n_tokens']:,} rows on {part['stored_grid']}: {ids}"
        if part["without_pieces"]:
            yield "no pieces", f"{len(part['without_pieces']):,} tokens: around the mean of the trained rows"
        if not is_dry:
            before = part["black_holes"]["before"]
            after = part["black_holes"]["after"]
            was = "rows that were no numbers" if before is None else f"{before[0]:,} with {before[1]:,} tokens"
            norm = part["norm"]
            again = f" ({part['n_redrawn']:,} drawn again)" if part["n_redrawn"] else ""
            became = f"{after[0]:,} with {after[1]:,} tokens; no repaired row is like another{again}"
            yield "black holes", f"{was} -> {became}"
            yield "norm", f"root mean square {norm['repaired_rms']:.4g}, of trained rows {norm['trained_rms']:.4g}"
    for done, named in report["files"].items():
        if named:
            yield f"{'would be ' * is_dry}{done.replace('_', ' ')}", ", ".join(map(printable, named))
    if not is_dry:
        yield "compared", f"{report['n_bytes_compared']:,} other bytes of the rewritten files: all as they were"
    for note in report["notes"]:
        yield "note", note


def print_series(series: Series, to: Console) -> None:
    """Print each checkpoint's census and changes, events, and the black holes of the last."""
    show(facts(_series_facts(series.checkpoints, series.summary)), to)
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


def _series_facts(checkpoints: pl.DataFrame, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    n = summary["n_checkpoints"]
    last = checkpoints.row(-1, named=True)
    yield "series", f"{n:,} checkpoint{'s' * (n != 1)}, {summary['n_distinct']:,} with other rows than all before"
    yield "embedding", f"{last['n_tokens']:,} tokens x {last['hidden_dim']:,}, {last['grid']}, at the last"
    yield "never moved", f"{summary['n_never_moved']:,} tokens"
    frozen = sorted(summary["frozen_since"], key=lambda item: -item["n_tokens"])[:4]
    yield "frozen since", ", ".join(f"{item['name']}: {item['n_tokens']:,}" for item in frozen)
    yield "events", event_counts(summary["events"])
    read = checkpoints["bytes_read"].drop_nulls().to_list()
    if read:
        yield "read", f"{sum(read) / 1e6:,.1f} MB from the Hub"


def _holes(black_holes: pl.DataFrame, texts: pl.Series) -> Table:
    rows = []
    for row in black_holes.head(SHOWN_HOLES).iter_rows(named=True):
        ids = row["tokens"]
        cells = [str(row["hole"]), f"{row['population']:,}", row["born"], row["joined"], row["frozen"]]
        rows.append([*cells, token_texts(ids, [texts[token] for token in ids[:SHOWN_TOKENS]], SHOWN_TOKENS)])
    lefts = ("born", "these since", "frozen since", "tokens")
    return table(("#", "population", *lefts), rows, left=lefts)
