"""Counts of the tokens of a corpus: which of the sought ones occur, and which of the vocabulary never do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from ..errors import InvalidInput, machine_errors
from ..runs.records import reading, write_table
from ..text import Shown

SCHEMA_VERSION = 1
COUNTS_FILE = "counts.parquet"  # of a run folder
FATAL = ("untrained", "weak", "verified")  # kinds of tokens that a corpus may be refused for
NUMBERS = ("n_pieces", "n_files", "n_binary", "n_bytes", "n_texts", "n_tokens", "n_bad_lines")
PLACES = 3  # of a token that are kept
Places = Mapping[int, list[dict[str, Any]]]  # by token: file, line, before, after


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Counts(Shown):
    """Counts of every token of a model in a corpus, and places of those that were sought."""

    read: Mapping[str, int]  # `NUMBERS`; and n_lines of the last file, so far
    tokens: pl.DataFrame  # all, by id: docs/files.md has the columns
    places: Places

    def plus(self, read: Mapping[str, int], total: np.ndarray, places: Places, *, within: bool) -> Counts:
        """Add the counts of the next piece, which begins `within` a file or at its start."""
        n_lines = self.read["n_lines"] if within else 0
        numbers = {name: n + read.get(name, 0) for name, n in self.read.items()}
        numbers["n_lines"] = n_lines + read["n_lines"]
        tokens = self.tokens.with_columns(self.tokens[name] + total[n] for n, name in enumerate(("count", "n_texts")))
        moved = {token: [{**one, "line": one["line"] + n_lines} for one in some] for token, some in places.items()}
        return Counts(read=numbers, tokens=tokens, places=joined(self.places, moved))

    @classmethod
    def open(cls, path: Path) -> Counts:
        """Read counts as `write` leaves them; CorruptFile for something else."""
        with reading(path, "counts of a corpus"):
            held = json.loads(pl.read_parquet_metadata(path)["corpus"])
            places = {int(token): some for token, some in held["places"].items()}
            return cls(read=held["read"], tokens=pl.read_parquet(path), places=places)

    def write(self, path: Path) -> None:
        """Write all counts as Parquet, whole or not at all; raises as `landing`."""
        write_table(path, self.tokens, corpus=json.dumps({"read": self.read, "places": self.places}))

    def occurring(self) -> pl.DataFrame:
        """Return the sought tokens that occur, the most frequent first, with their first places."""
        kept = self.tokens.filter(self.tokens["sought"] & (self.tokens["count"] > 0)).drop("sought")
        kept = kept.sort("count", "id", descending=[True, False])
        first = [self.places[token][0] for token in kept["id"]]
        return kept.hstack(pl.DataFrame(first, {"file": str, "line": int, "before": str, "after": str}))

    def kinds(self) -> dict[str, dict[str, int]]:
        """Count for each grade, and the verified, the tokens, those that occur, and their occurrences."""
        of = {grade: self.tokens["grade"] == grade for grade in ("untrained", "weak", "trained")}
        if "verified" in self.tokens.columns:
            of["verified"] = self.tokens["verified"].fill_null(False)
        counts = {kind: self.tokens["count"].filter(mask) for kind, mask in of.items()}
        return {
            kind: {"n_tokens": len(n), "n_occurring": int((n > 0).sum()), "n_occurrences": int(n.sum())}
            for kind, n in counts.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return totals as JSON-ready data, and the sought tokens that occur."""
        occurring = self.occurring().drop("file", "line", "before", "after").to_dicts()
        tokens = [{**token, "places": self.places[token["id"]]} for token in occurring]
        facts = {name: self.read[name] for name in NUMBERS} | {"kinds": self.kinds()}
        unseen = never(self.tokens["count"].to_numpy())
        return {"schema_version": SCHEMA_VERSION, **facts, "never": unseen, "tokens": tokens}


def joined(places: Places, more: Places) -> Places:
    """Append places to places, up to the `PLACES` that are kept of each token."""
    tokens = sorted({*places, *more})
    return {token: [*places.get(token, []), *more.get(token, [])][:PLACES] for token in tokens}


def never(counts: Int64[np.ndarray, " n_tokens"]) -> dict[str, Any]:
    """Count the tokens that never occur, with 95% bounds on their share, were the corpus a random sample.

    N tokens, of which n1 occur once and n2 twice. `share_each`, of one token that never occurs, is at most 3/N (the
    rule of three). `missing_mass`, of all of them, is n1/N (Good 1953) and at most `missing_mass_high` = n1/N + 1.645
    sqrt(n1 (1 - n1/N) + 2 n2) / N (Esty 1983), which is at least 3/N. All three are None without tokens.

    Examples
    --------
    >>> never(np.array([600, 397, 2, 1, 0]))["missing_mass"]
    0.001
    """
    n = int(counts.sum())
    once, twice = (int((counts == times).sum()) for times in (1, 2))
    high = max(once + 1.6449 * math.sqrt(once * (1 - once / max(n, 1)) + 2 * twice), 3.0)
    bounds = {"share_each": 3.0, "missing_mass": once, "missing_mass_high": high}
    shares = {name: min(bound / n, 1.0) if n else None for name, bound in bounds.items()}
    return {"n": int((counts == 0).sum()), "of": len(counts), "n_once": once, **shares}


@machine_errors()
def read_counts(path: str | Path, n_tokens: int) -> Int64[np.ndarray, " n_tokens"]:
    """Read the count of every token of a model, 0 where a Parquet or CSV file of `id` and `count` has none.

    Raises MissingFile, CorruptFile where it is no such file, InvalidInput where it has other columns or numbers.
    """
    path = Path(path)
    with path.open("rb") as file, reading(path, "counts as Parquet or CSV"):
        frame = pl.read_csv(file) if path.suffix == ".csv" else pl.read_parquet(file)
    columns = [frame[name] for name in ("id", "count") if name in frame.columns and frame[name].dtype.is_integer()]
    if len(columns) < 2 or any(column.null_count() or (column < 0).any() for column in columns):
        wanted = "columns `id` and `count` of whole numbers from 0 on"
        raise InvalidInput(f"{path}: counts are {wanted}, not {frame.schema}")
    ids = columns[0].to_numpy()
    if len(np.unique(ids)) < len(ids) or ids.max(initial=0) >= n_tokens:
        wrong = f"an id is there twice, or beyond the {n_tokens:,} tokens of the model"
        raise InvalidInput(f"{path}: {wrong}: {ids.max():,}")
    counts = np.zeros(n_tokens, np.int64)
    counts[ids] = columns[1]
    return counts
