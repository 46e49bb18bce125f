"""Metrics of optimizer steps, the file that a training leaves of them, and which of them mean that it diverged."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64

from ..errors import CorruptFile, Diverged
from ..landing import landing

FILE = "metrics.parquet"


class Metrics(NamedTuple):
    """Metrics of one optimizer step; the loss is computed before the update."""

    step: int
    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float


COLUMNS = Metrics._fields[1:]


def n_before_divergence(metrics: Float64[np.ndarray, "steps 3"]) -> int:
    """Count the steps before the first one whose loss or gradient norm is NaN or infinite."""
    finite = np.isfinite(metrics[:, :2]).all(1)
    return len(metrics) if finite.all() else int(finite.argmin())


def divergence(metrics: Metrics) -> Diverged:
    """Return the error of a training that diverged at the step of these metrics."""
    numbers = f"loss {metrics.loss}, gradient norm {metrics.gradient_norm}"
    return Diverged(f"the training diverged at step {metrics.step:,}: {numbers}; what was recorded before is kept")


def write_metrics(run: Path, metrics: Float64[np.ndarray, "steps 3"]) -> None:
    """Write the metrics of steps 1, 2, ... into a run folder; raises as `landing`."""
    columns = dict(zip(COLUMNS, metrics.T, strict=True))
    frame = pl.DataFrame({"step": np.arange(1, len(metrics) + 1), **columns})
    with landing(run / FILE) as file:
        frame.write_parquet(file, compression="zstd")


def read_metrics(run: Path) -> pl.DataFrame:
    """Read the metrics of an ended training; raises `CorruptFile` where they are missing, or of another kind."""
    path = run / FILE
    try:
        return pl.read_parquet(path, columns=list(Metrics._fields)).cast(dict.fromkeys(COLUMNS, pl.Float64))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CorruptFile(f"{path}: not the metrics of a training ({error})") from None
