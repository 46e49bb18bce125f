"""Counted tokens of a scan: how often each occurs in a corpus, beside what the weights say of it."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ..errors import InvalidInput, machine_errors
from ..runs.records import reading


@machine_errors()
def read_counts(path: str | Path, n_tokens: int) -> Int64[np.ndarray, " n_tokens"]:
    """Read the count of every token of a model, 0 where a Parquet or CSV file of `id` and `count` has none.

    Raises MissingFile; CorruptFile where it is no such file; InvalidInput where it lacks a column, or has negative
    numbers, an id twice, or one beyond the rows.
    """
    import polars as pl

    path = Path(path)
    with path.open("rb") as file, reading(path, "counts as Parquet or CSV"):
        frame = pl.read_csv(file) if path.suffix == ".csv" else pl.read_parquet(file)
    for name in ("id", "count"):
        if name not in frame.columns:
            raise InvalidInput(f"{path} has no column {name}; give id and count, as `darkvocab corpus` writes them")
        if not frame[name].dtype.is_integer() or frame[name].null_count() or (frame[name] < 0).any():
            raise InvalidInput(f"{path}: {name} must be whole numbers that are not negative")
    ids = frame["id"].to_numpy()
    if len(np.unique(ids)) < len(ids):
        raise InvalidInput(f"{path} has an id twice")
    if len(ids) and ids.max() >= n_tokens:
        raise InvalidInput(f"{path} counts token {ids.max():,} of another vocabulary: the model has {n_tokens:,}")
    counts = np.zeros(n_tokens, np.int64)
    counts[ids] = frame["count"]
    return counts
