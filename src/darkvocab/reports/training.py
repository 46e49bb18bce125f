"""A training that has ended: how its loss fell, and which rows were shared at its start and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.history import History
from ..errors import CorruptFile, MissingFile
from ..measures.census import counts
from .evolution import METRICS
from .evolution_figures import loss_plot
from .labels import COUNTS
from .plot import Plot

ENDED = ("complete", "diverged")


def read_training(folder: Path, manifest: dict[str, Any]) -> tuple[list[list[str]], list[str], Plot | None]:
    """Counts at the start and the end, of all and of unseen tokens; sentences; the plot of the loss, if it has any.

    Raises
    ------
    MissingFile
        It has not ended, or its recording is gone.
    CorruptFile, NoEmbedding
        Its files are not what a training leaves.
    """
    import polars as pl

    if manifest["status"] not in ENDED:
        raise MissingFile(f"{folder} holds a training that is {manifest['status']}; finish it with --resume first")
    history = History.open(folder)
    unseen = np.array(history.unseen or (), np.int64)
    ends = [words for _, words in history.words((0, history.n_rows - 1))]
    counted = [counts(words[chosen]) for words in ends for chosen in (slice(None), unseen)]
    rows = [[name, *(f"{one[key]:,}" for one in counted)] for key, name in COUNTS.items()]
    path = folder / METRICS
    try:
        metrics = pl.read_parquet(path, columns=["step", "loss"]).drop_nulls()
        metrics = metrics.filter((metrics["step"] > 0) & metrics["loss"].is_finite())
        loss = metrics["loss"].to_list()
        summary = {
            **{"unseen": history.unseen, "n_tokens": history.n_tokens, "hidden_dim": history.dim},
            **{"grid": history.grid.name, "n_measured": 2, "last_step": history.step(history.n_rows - 1)},
        }
        plot = loss_plot(metrics, summary) if len(loss) else None
    except (pl.exceptions.PolarsError, OSError, LookupError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path}: not the metrics of a training ({error})") from None
    sentences = [
        f"{history.n_rows:,} states of {history.n_tokens:,} tokens x {history.dim:,} were recorded on "
        f"{history.grid.name}; {len(unseen):,} tokens do not occur in the text."
    ]
    if loss:
        sentences.append(f"The loss fell from {loss[0]:.4f} to {loss[-1]:.4f} nats per token.")
    if manifest["status"] == "diverged":
        sentences.append("It diverged: the loss became no number, and the training ended there.")
    sentences.append("What became of its black holes between, step by step, darkvocab evolve says.")
    return rows, sentences, plot
