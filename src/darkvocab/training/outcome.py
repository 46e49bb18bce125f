"""Write, read and measure the results of a training: the metrics of its steps, and its outcome."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from ..embedding.history import History
from ..errors import CorruptFile, MissingFile
from ..landing import write_json
from ..measures.census import Census, counts
from ..measures.geometry import Geometry
from ..numerics import Grid, identical_rows, index_values, to_index
from ..runs.folder import read_manifest
from ..runs.records import reading, write_table
from ..text import Shown

FILE = "outcome.json"
METRICS_TABLE = "metrics.parquet"
# Metrics of one optimizer step: the loss before the update, the norm of the gradient before clipping.
METRIC_COLUMNS = ("loss", "gradient_norm", "learning_rate")
ENDED = ("complete", "diverged")


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingOutcome(Shown):
    """Start and end of a training; each of `states` has a census of all and of unseen tokens."""

    status: str  # complete, or diverged: the last state is then the one before that
    steps: int  # that were made
    n_unseen: int
    loss: dict[str, float] | None  # first, last; None without a step
    states: tuple[dict[str, Any], dict[str, Any]]  # step, all, unseen: the first and the last that was recorded
    unseen_l_inf: dict[str, float | int | None]  # over all pairs of unseen tokens; None with fewer than two
    centroid_displacement: float  # weight units

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def outcome(run: str | Path) -> TrainingOutcome:
    """Return the outcome of a training; MissingFile where none has ended, CorruptFile where it cannot be read."""
    path = Path(run)
    manifest = read_manifest(path)
    if manifest.get("experiment") != "train" or manifest["status"] not in ENDED:
        raise MissingFile(f"{path} holds no training that has ended")
    if not (path / FILE).is_file():  # an early version of darkvocab wrote none
        return measure_outcome(path, manifest["status"])
    with reading(path / FILE, "the outcome of a training"):
        written = json.loads((path / FILE).read_text("utf-8"))
        first, last = written["states"]
        counted = [n for state in (first, last) for of in ("all", "unseen") for n in state[of].values()]
        if not all(isinstance(n, int) for n in counted):
            raise TypeError("counts that are no integers")
        return TrainingOutcome(**{**written, "states": (first, last)})


def measure_outcome(path: Path, status: str) -> TrainingOutcome:
    """Measure the first and the last state of a recording; raises CorruptFile as `outcome`."""
    history, ends = read_ends(path)
    if history.unseen is None:
        raise CorruptFile(f"{path}: its corpus.json does not say which tokens are unseen")
    unseen = np.array(history.unseen, np.int64)
    losses = read_metrics(path)["loss"]
    first, last = (
        {"step": step, "all": counts(end), "unseen": counts(end[unseen])}
        for step, end in zip((0, history.step(history.n_rows - 1)), ends, strict=True)
    )
    return TrainingOutcome(
        status=status,
        steps=len(losses),
        n_unseen=len(unseen),
        loss={"first": losses[0], "last": losses[-1]} if len(losses) else None,
        states=(first, last),
        unseen_l_inf=_l_inf(ends[1][unseen], history.grid),
        centroid_displacement=displacement(*ends, history.grid),
    )


def read_ends(run: Path) -> tuple[History, tuple[np.ndarray, np.ndarray]]:
    """Read the words [vocabulary, dim] of a run's first and last state, with its history; raises as `History.open`."""
    history = History.open(run)
    (_, first), (_, last) = history.words((0, history.n_rows - 1))
    return history, (first, last)


def displacement(first: np.ndarray, last: np.ndarray, grid: Grid) -> float:
    """Return the Euclidean distance, in weight units, of the centroids of two states of words [vocabulary, dim]."""
    before, after = (index_values(to_index(words, grid), grid).mean(axis=0) for words in (first, last))
    return float(np.linalg.norm(after - before))


def token_distances(words: np.ndarray, grid: Grid) -> Geometry:
    """Measure the distances of all pairs of rows of words [n, dim]."""
    tokens, weights = Census(identical_rows(words)).groups.select("tokens")
    return Geometry(to_index(words, grid)[tokens], grid, over="tokens", weights=weights)


def _l_inf(words: np.ndarray, grid: Grid) -> dict[str, float | int | None]:
    if len(words) < 2:
        return dict.fromkeys(("max_l_inf", "mean_l_inf", "max_l_inf_steps"))
    distances = token_distances(np.ascontiguousarray(words), grid)
    lengths = {"max_l_inf": float(distances.weight.max), "mean_l_inf": float(distances.weight.mean)}
    return {**lengths, "max_l_inf_steps": int(distances.steps.max)}


def n_before_divergence(metrics: Float64[np.ndarray, "steps 3"]) -> int:
    """Count the steps before the first one whose loss or gradient norm is NaN or infinite."""
    finite = np.isfinite(metrics[:, :2]).all(1)
    return len(metrics) if finite.all() else int(finite.argmin())


def write_outcome(run: Path, metrics: Float64[np.ndarray, "steps 3"], status: str) -> None:
    """Write the metrics of steps 1, 2, ... of a recorded training, and its outcome; raises as `landing`."""
    columns = dict(zip(METRIC_COLUMNS, metrics.T, strict=True))
    write_table(run / METRICS_TABLE, pl.DataFrame({"step": np.arange(1, len(metrics) + 1), **columns}))
    write_json(run / FILE, measure_outcome(run, status).to_json())


def read_metrics(run: Path) -> pl.DataFrame:
    """Read the metrics of an ended training; raises `CorruptFile` where they are missing, or of another kind."""
    with reading(run / METRICS_TABLE, "the metrics of a training"):
        return pl.read_parquet(run / METRICS_TABLE, columns=["step", *METRIC_COLUMNS]).cast(
            dict.fromkeys(METRIC_COLUMNS, pl.Float64)
        )
