"""Metrics of optimizer steps, the file that a training leaves of them, and which of them mean that it diverged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64

from ..errors import CorruptFile
from ..runs.records import write_table

FILE = "metrics.parquet"
# Of one optimizer step: the loss before the update, and the norm of the gradient before it is clipped.
COLUMNS = ("loss", "gradient_norm", "learning_rate")


def n_before_divergence(metrics: Float64[np.ndarray, "steps 3"]) -> int:
    """Count the steps before the first one whose loss or gradient norm is NaN or infinite."""
    finite = np.isfinite(metrics[:, :2]).all(1)
    return len(metrics) if finite.all() else int(finite.argmin())


def write_metrics(run: Path, metrics: Float64[np.ndarray, "steps 3"]) -> None:
    """Write the metrics of steps 1, 2, ... into a run folder; raises as `landing`."""
    columns = dict(zip(COLUMNS, metrics.T, strict=True))
    write_table(run / FILE, pl.DataFrame({"step": np.arange(1, len(metrics) + 1), **columns}))


def read_metrics(run: Path) -> pl.DataFrame:
    """Read the metrics of an ended training; raises `CorruptFile` where they are missing, or of another kind."""
    path = run / FILE
    try:
        return pl.read_parquet(path, columns=["step", *COLUMNS]).cast(dict.fromkeys(COLUMNS, pl.Float64))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CorruptFile(f"{path}: not the metrics of a training ({error})") from None
