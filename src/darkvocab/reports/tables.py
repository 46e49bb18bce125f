"""Tables for people, from the JSON of a scan and the records of a run."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..matrix import printable

if TYPE_CHECKING:
    import polars as pl

SHOWN_TOKENS = 12


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process here, with 1


def console() -> Console:
    """A console that neither colours nor cuts what goes into a file or a pipe."""
    plain = _Console(highlight=False, emoji=False, markup=False)
    if not plain.is_terminal:
        plain.width = 160
    return plain


def show(renderable: RenderableType, to: Console) -> None:
    """Print without the blanks that rich leaves at the end of lines."""
    with to.capture() as captured:
        to.print(renderable)
    to.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def token_texts(hole: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    """Texts of a black hole's tokens, or ids where there is no text, the first `shown` of them."""
    texts = [
        f"#{token}" if text is None else isolated(printable(text))
        for token, text in zip(hole["token_ids"][:shown], hole["tokens"][:shown], strict=True)
    ]
    left = hole["population"] - len(texts)
    return "  ".join(texts) + (f"  and {left:,} more" if left else "")


def isolated(text: str) -> str:
    """Text that does not turn its surroundings round: right-to-left letters between isolate marks."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text


def _facts(pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(value))
    return table


def print_scan(report: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS, most_holes: int = 40) -> None:
    """The census of a checkpoint for people: facts, then the black holes in descending order."""
    grid = report["grid"]
    if grid != report["stored_grid"]:
        grid = f"{grid} (rounded from the stored {report['stored_grid']})"
    output = report["output_tensor"]
    tied = "tied" if report["tied"] else "untied"
    tied += f": {printable(output)} holds the same words" if output and report["tied"] else ""
    tied += f": the output tensor {printable(output)} differs" if not report["tied"] else ""
    tied += ": no output tensor of its own" if not output else ""
    beyond = report["n_beyond_tokenizer"]
    norms, l_inf = report["norms"], report["l_inf"]
    facts = [
        ("source", printable(report["source"]["path"])),
        ("tensor", f"{printable(report['tensor'])} (found {report['chosen']}), {tied}"),
        ("tokens", f"{report['n_tokens']:,}"),
        ("dimension", f"{report['hidden_dim']:,}"),
        ("grid", grid),
        ("unique rows", f"{report['n_unique']:,}"),
        ("black holes C", f"{report['n_black_holes']:,}"),
        ("population P", f"{report['black_hole_population']:,} tokens in black holes"),
        ("singletons", f"{report['n_singletons']:,}"),
        ("beyond tokenizer", "no tokenizer beside the weights" if beyond is None else f"{beyond:,} rows"),
        (
            "norm of rows",
            f"min {norms['min']:.4g}   5% {norms['p5']:.4g}   median {norms['p50']:.4g}   mean {norms['mean']:.4g}   "
            f"95% {norms['p95']:.4g}   max {norms['max']:.4g}",
        ),
    ]
    if l_inf is None:
        facts.append(("L-inf of black holes", "not computed: too many to compare all with all"))
    elif report["n_black_holes"] > 1:
        furthest, mean = ("beyond float32" if l_inf[key] is None else f"{l_inf[key]:.4g}" for key in ("max", "mean"))
        facts.append(("L-inf of black holes", f"max {furthest} ({l_inf['max_steps']:,} steps)   mean {mean}"))
    show(_facts(facts), to)
    if not report["black_holes"]:
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("population", justify="right")
    table.add_column("tokens", overflow="fold")
    for number, hole in enumerate(report["black_holes"][:most_holes], 1):
        table.add_row(str(number), f"{hole['population']:,}", Text(token_texts(hole, shown)))
    to.print()
    show(table, to)
    left = report["black_holes"][most_holes:]
    if left:
        population = sum(hole["population"] for hole in left)
        to.print(f"and {len(left):,} more black holes with {population:,} tokens; --json lists them all")


SUMMARY = {
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "largest_bh": "largest group",
    "max_l_inf": "max L-inf among black holes",
    "max_l_inf_over_epsilon": "max L-inf / epsilon",
    "max_l_inf_steps": "max L-inf in grid steps",
}


def summary(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Range of each statistic over the records, and its mean at the smallest and at the largest sigma."""
    first, last = frame["sigma"].min(), frame["sigma"].max()
    rows = []
    for column, label in SUMMARY.items():
        values = frame[column].drop_nulls()
        if values.is_empty():
            continue
        at = {
            end: frame.filter(frame["sigma"] == sigma)[column].mean()
            for end, sigma in (("first", first), ("last", last))
        }
        rows.append({"statistic": label, "min": values.min(), "median": values.median(), "max": values.max(), **at})
    return rows


def number(value: float) -> str:
    """A statistic for people: counts in full, lengths to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def print_sweep(frame: pl.DataFrame, to: Console) -> None:
    """The notebook's summary of a sweep: how many records, and the range of each statistic."""
    sigma = frame["sigma"].to_numpy()
    first, last = float(sigma.min()), float(sigma.max())
    points = frame["sigma"].n_unique()
    trials = len(frame) // points
    to.print(
        f"{len(frame):,} records: {points:,} sigma from {first:g} to {last:g}, "
        f"{trials:,} trial{'s' * (trials > 1)} each"
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    columns = {"min": "min", "median": "median", "max": "max"}
    if first < last:
        columns |= {"first": f"at {first:.4g}", "last": f"at {last:.4g}"}
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in summary(frame):
        table.add_row(row["statistic"], *(number(row[key]) for key in columns))
    show(table, to)


def print_comparison(rows: Sequence[dict[str, Any]], to: Console) -> None:
    """Published figures beside ours, and below the table what stands in the way of checking one."""
    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading, justify in (("figure", "left"), ("published", "right"), ("here", "right"), ("agrees?", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        table.add_row(*(Text(str(row[key])) for key in ("figure", "published", "here")), Text(row["agrees"] + mark))
    show(table, to)
    for number, note in enumerate(notes, 1):
        to.print(f"[{number}] {note}")
