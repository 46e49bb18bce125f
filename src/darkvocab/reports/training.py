"""A training that has ended: the rows shared at its start and at its end, and how its loss fell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from ..embedding.history import FILE, History
from ..errors import MissingFile
from ..measures.census import counts
from ..runs.records import reading
from .console import show, table
from .document import Page
from .evolution import METRICS
from .evolution_figures import loss_plot
from .labels import COUNTS, page_words

ENDED = ("complete", "diverged")
OUTCOME = "outcome.json"  # what a training leaves


def print_training(outcome: dict[str, Any], to: Console) -> None:
    """Print the first and the last state of a training."""
    states = outcome["states"]
    headings = ["", *(heading for state in states for heading in (f"step {state['step']:,}", "unseen"))]
    show(table(headings, _rows(states)), to)
    loss = f"loss {outcome['loss']['first']:.4f} to {outcome['loss']['last']:.4f}; " if outcome["loss"] else ""
    moved = f"the centroid moved by {outcome['centroid_displacement']:.6f}"
    to.print(f"{loss}{moved}; {outcome['n_unseen']:,} tokens unseen")


def _rows(states: Any) -> list[list[str]]:
    """Return names, and counts of all and of unseen tokens at the start and at the end."""
    counted = [state[of] for state in states for of in ("all", "unseen")]
    return [[name, *(f"{one[key]:,}" for one in counted)] for key, name in COUNTS.items()]


def training_page(folder: Path, manifest: dict[str, Any]) -> Page:
    """Return the page of a training: counts at the start and the end, and the loss.

    MissingFile where it has not ended or has no recording; CorruptFile or NoEmbedding for other files.
    """
    if manifest["status"] not in ENDED:
        raise MissingFile(f"{folder} holds a training that is {manifest['status']}; finish it with --resume first")
    history = History.open(folder)
    with reading(folder / OUTCOME, "the outcome of a training"):
        rows = _rows(_states(folder, history))
    with reading(folder / METRICS, "the metrics of a training"):
        metrics = pl.read_parquet(folder / METRICS, columns=["step", "loss"]).drop_nulls()
        metrics = metrics.filter((metrics["step"] > 0) & metrics["loss"].is_finite())
        loss = metrics["loss"].to_list()
        summary = {
            **{"unseen": history.unseen, "n_tokens": history.n_tokens, "hidden_dim": history.dim},
            **{"grid": history.grid.name, "n_measured": 2, "last_step": history.step(history.n_rows - 1)},
        }
        pictures = {"loss": loss_plot(metrics, summary)} if loss else {}
    with reading(folder / "manifest.json", "the manifest of a training"):
        words = page_words("train", settings_said(manifest["parameters"]))
    remarks = [
        f"{history.n_rows:,} states of {history.n_tokens:,} tokens x {history.dim:,} were recorded on "
        f"{history.grid.name}; {len(history.unseen or ()):,} tokens do not occur in the text."
    ]
    if loss:
        remarks.append(f"The loss fell from {loss[0]:.4f} to {loss[-1]:.4f} nats per token.")
    if manifest["status"] == "diverged":
        remarks.append("It diverged: the loss became no number, and the training ended there.")
    remarks.append("What became of its black holes between, step by step, darkvocab evolve says.")
    return Page(**words, rows=rows, remarks=remarks, pictures=pictures, files=[FILE, METRICS, "corpus.json"])


def settings_said(parameters: dict[str, Any]) -> str:
    """Return the settings of a training that say most."""
    return (
        f"{parameters['steps']:,} steps from a {parameters['start']} start; {parameters['n_unseen']:,} of "
        f"{parameters['vocabulary']:,} tokens do not occur in the text"
    )


def _states(folder: Path, history: History) -> list[dict[str, dict[str, int]]]:
    """Return the first and the last state as the training counted them; a version that wrote no counts is counted."""
    path = folder / OUTCOME
    if not path.is_file():
        unseen = np.array(history.unseen or (), np.int64)
        ends = (words for _, words in history.words((0, history.n_rows - 1)))
        return [{"all": counts(words), "unseen": counts(words[unseen])} for words in ends]
    first, last = json.loads(path.read_text("utf-8"))["states"]
    return [{of: {key: int(state[of][key]) for key in COUNTS} for of in ("all", "unseen")} for state in (first, last)]
