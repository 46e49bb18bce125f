"""The evolution of an embedding: tables and sentences from what `darkvocab evolve` recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from rich.console import Console

from ..errors import MissingFile
from ..runs.records import reading
from . import evolution_figures
from .console import facts, number, print_left, print_lines, show, table
from .document import COUNTS, PAGES, WORDS, Page, page_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..training.evolve import Evolution
    from .plot import Plot

READ = ("evolution", "events", "tokens")  # frames
EVOLUTION = "evolution.json"  # what `darkvocab evolve` writes last
METRICS = "metrics.parquet"  # what a training leaves
SHOWN_ROWS, SHOWN_EVENTS, SHOWN_TOKENS = 12, 20, 12
TOLD_EVENTS = 200  # on a page
HEADINGS = [heading.replace("L-infinity", "L-inf") for heading in PAGES["evolve"]["headings"]]


def print_evolution(evolution: Evolution, to: Console) -> None:
    """Print what became of the tokens: facts, some rows from first to last, events, and the notebooks' verdicts."""
    show(facts(_facts(evolution.summary)), to)
    show(table(HEADINGS, row_cells(evolution.records), left=("tokens",)), to, apart=True)
    print_lines([WORDS["notes"]["evolution"]], to)
    happened = evolution.events.filter(evolution.events["kind"] != "start")
    print_events(happened, lambda event: f"step {event['step']:>9,}", "events.parquet (--out) and --json", to)
    for verdict in evolution.summary["verdicts"]:
        to.print(f"\n{verdict['seed']}, by the notebook (epsilon {verdict['epsilon']:g}):")
        print_lines((f"  {sentence}" for sentence in verdict["notebook"]), to)
        to.print("on the grid:")
        print_lines((f"  {sentence}" for sentence in verdict["grid"]), to)


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    planned = f" of {summary['n_planned']:,} planned" if summary["n_recorded"] < summary["n_planned"] else ""
    apart = f", {summary['record_every']:,} steps apart" if summary["record_every"] > 1 else ""
    taken = f"; {summary['n_measured']:,} measured" if summary["n_measured"] < summary["n_recorded"] else ""
    yield "history", f"{summary['file']}: {summary['n_recorded']:,} rows{planned}{apart}{taken}"
    yield "embedding", f"{summary['n_tokens']:,} tokens x {summary['hidden_dim']:,}, {summary['grid']}"
    unseen = summary["unseen"]
    yield "unseen", "nobody says which; --unseen names them" if unseen is None else f"{len(unseen):,} tokens"
    for name, froze in summary["freezing"].items():
        yield f"{name} tokens", _froze(froze, summary["last_step"])
    yield "events", event_counts(summary["events"])
    geometry = summary["geometry"]
    if geometry:
        mean = "" if geometry["mean_l_inf"] is None else f"   mean {geometry['mean_l_inf']:.4g}"
        far = "beyond float32" if geometry["max_l_inf"] is None else f"{geometry['max_l_inf']:.4g}"
        least = "" if geometry["min_l_inf"] is None else f"min {geometry['min_l_inf']:.4g}   "
        yield (
            "L-inf of unseen",
            f"{least}max {far} ({geometry['component_steps']:,} grid steps in component "
            f"{geometry['component']}, ulp {geometry['component_ulp']:.4g}){mean}   at most "
            f"{geometry['max_l_inf_steps']:,} grid steps",
        )
    if summary["notebook_displacement"] is not None:
        yield "displacement", f"{summary['notebook_displacement']:.6g} as the notebooks round it"


def _froze(froze: dict[str, Any], last_step: int) -> str:
    if froze["last_change"] is None:
        return "never moved"
    never = f"; {froze['n_never_moved']:,} never moved" if froze["n_never_moved"] else ""
    if froze["n_moved_last"]:
        return f"{froze['n_moved_last']:,} still moving at step {last_step:,}{never}"
    return f"frozen since step {froze['last_change']:,}{never}"


def row_cells(records: pl.DataFrame, shown: int = SHOWN_ROWS) -> list[list[str]]:
    """Return first, some and last measured rows for people, by `HEADINGS`: early ones more densely."""
    rows = records["row"].unique().sort().to_numpy()
    n = len(rows)
    some = np.arange(n) if n <= shown else np.unique(np.geomspace(1, n, shown).round().astype(int) - 1)
    return [
        [
            f"{row['step']:,}" if row["tokens"] == "all" else "",
            row["tokens"],
            *(f"{row[name]:,}" for name in COUNTS),
            f"{row['max_l_inf']:.3g}",
            f"{row['max_l_inf_steps']:,}",
            f"{row['radius_rms']:.3g}",
            f"{row['centroid_displacement']:.4g}",
            *(number(row[name]) for name in ("n_moved", "max_move_l_inf_steps")),
            *("" if row[name] is None else f"{row[name]:.2g}" for name in ("bulk_motion", "thermal_motion")),
        ]
        for row in records.filter(records["row"].is_in(rows[some].tolist())).iter_rows(named=True)
    ]


def print_events(happened: pl.DataFrame, when: Callable[[dict[str, Any]], str], files: str, to: Console) -> None:
    """Print the first events, each after when it was, and which files have the others."""
    if happened.height:
        to.print()
        for event in happened.head(SHOWN_EVENTS).iter_rows(named=True):
            to.print(f"{when(event)}  {told(event)}", soft_wrap=True)
        print_left(happened.height - SHOWN_EVENTS, f"events; {files} have them all", to)


def event_counts(counts: dict[str, int]) -> str:
    """Return how many events of each kind there were."""
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if kind != "start") or "none"


def told(event: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    """Return an event in words, with the first of its token ids."""
    n = event["n_tokens"]
    ids = " ".join(map(str, event["tokens"][:shown])) + (f" and {n - shown:,} more" if n > shown else "")
    names = {"hole": f"#{event['hole']}", "other": f"#{event['other']}", "n": f"{n:,} token{'s' * (n != 1)}"}
    for word in ("from", "to"):
        names[f"{word}_other"] = "" if event["other"] is None else f" {word} {names['other']}"
    return f"{WORDS['events'][event['kind']].format(**names)}: {ids}"


def evolution_page(folder: Path) -> Page:
    """Return the page of a measured history; MissingFile without one, CorruptFile where files are not its own."""
    frames = [f"{name}.parquet" for name in READ]
    for name in (EVOLUTION, *frames):
        if not (folder / name).is_file():
            raise MissingFile(f"{folder} holds no measured history ({name}); darkvocab evolve makes one")
    with reading(folder, "what darkvocab evolve left there"):
        summary = json.loads((folder / EVOLUTION).read_text("utf-8"))
        records, events, tokens = (pl.read_parquet(folder / name) for name in frames)
        by_step = evolution_figures.holes_by_step(records, events, summary["n_tokens"])
        pictures: dict[str, Plot | Figure] = {
            "counts": evolution_figures.counts_plot(records, summary),
            "populations": evolution_figures.populations_figure(by_step, tokens, summary),
            "motion": evolution_figures.motion_plot(records, summary),
            "spacetime": evolution_figures.spacetime_figure(by_step, tokens, summary),
        }
        metrics = [METRICS] if (folder / METRICS).is_file() else []
        if metrics:
            losses = pl.read_parquet(folder / METRICS, columns=["step", "loss"]).drop_nulls()
            losses = losses.filter(losses["step"] > 0)
            pictures |= {"loss": evolution_figures.loss_plot(losses, summary)} if len(losses) else {}
        unseen = f", {len(summary['unseen']):,} of them unseen" if summary["unseen"] is not None else ""
        over = f"{summary['n_tokens']:,} tokens{unseen}, over {summary['last_step']:,}"
        return Page(
            **page_words("evolve", over),
            facts=list(_facts(summary)),
            rows=row_cells(records),
            pictures=pictures,
            lists=list(_happened(events, summary)),
            files=[EVOLUTION, *frames, *metrics],
        )


def _happened(events: pl.DataFrame, summary: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    happened = [event for event in events.iter_rows(named=True) if event["kind"] != "start"]
    if happened:
        sentences = [f"step {event['step']:,}: {told(event)}" for event in happened[:TOLD_EVENTS]]
        if (left := len(happened) - TOLD_EVENTS) > 0:
            sentences.append(f"and {left:,} more, in events.parquet")
        yield "Events", sentences
    for verdict in summary["verdicts"]:
        yield f"{verdict['seed']}, by the notebook (epsilon {verdict['epsilon']:g})", list(verdict["notebook"])
        yield f"{verdict['seed']}, on the grid", list(verdict["grid"])
