"""Tokens of a corpus: tables of kinds and of the sought tokens that occur, and what never occurs."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from ..measures.counts import Counts, never
from ..text import printable
from .console import isolated, print_left, print_lines, show, table
from .document import WORDS

KINDS = ("tokens", "n", "that occur", "occurrences")
OCCURRING = ("id", "token", "grade", "times", "texts", "first in", "with the text around")
SHOWN = 24  # characters before and behind a token


def sentences(counts: Counts) -> Iterator[str]:
    """Yield what was read, and what follows for tokens that do not occur."""
    words = WORDS["corpus"]
    for name in ("read", "n_bad_lines", "n_binary"):
        if counts.read.get(name, 1):
            yield words[name].format(**counts.read, megabytes=counts.read["n_bytes"] / 1e6)
    yield words["never" if counts.read["n_tokens"] else "none"].format(**never(counts.tokens["count"].to_numpy()))


def print_counts(counts: Counts, to: Console, shown: int) -> None:
    """Print the kinds, what follows, and the sought tokens that occur, the most frequent first."""
    show(table(KINDS, ([kind, *(f"{n:,}" for n in numbers.values())] for kind, numbers in counts.kinds().items())), to)
    to.print()
    print_lines(sentences(counts), to)
    rows = occurring(counts)
    if rows:
        show(table(OCCURRING, rows[:shown], left=("token", "grade", *OCCURRING[-2:])), to, apart=True)
    print_left(len(rows) - shown, "that occur; --json lists them all", to)


def occurring(counts: Counts) -> list[list[str]]:
    """Return a row for each sought token that occurs, the most frequent first: `OCCURRING`."""
    rows = []
    for row in counts.occurring().iter_rows(named=True):
        text = f"#{row['id']}" if row["text"] is None else printable(row["text"])
        before, after = printable(row["before"])[-SHOWN:], printable(row["after"])[:SHOWN]
        numbers = (f"{row[name]:,}" for name in ("count", "n_texts"))
        grade = row["grade"] + ", verified" * bool(row.get("verified"))
        where = f"{printable(row['file'])}:{row['line']}"
        rows.append([str(row["id"]), isolated(text), grade, *numbers, where, isolated(f"{before}[{text}]{after}")])
    return rows
