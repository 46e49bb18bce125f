"""Report trainings that have ended (shared rows at start and end, the loss), and replicas (means with their errors)."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from ..embedding.history import HISTORY_FILE, History
from ..errors import MissingFile
from ..measures.census import counts
from ..runs.records import Records, reading
from .console import number
from .document import COUNT_LABELS, TITLES, WORDS, Page, lines_of, page_words, print_text
from .evolution import LOOKS, METRICS_FILE, loss_plot, step_axis
from .experiments import deviation
from .plot import Axis, Curve, Panel, Plot, top_of

ENDED = ("complete", "diverged")
OUTCOME = "outcome.json"  # the last file of a training
CONFIDENCE = 0.95  # of the intervals of means
COUNT_PREFIXES = ("start_", "start_unseen_", "", "unseen_")  # of the counts in a replica's record
OTHERS = WORDS["replicas"]


def print_training(outcome: dict[str, Any], to: Console) -> None:
    """Print the first and the last state of a training."""
    print_text("training", to, outcome=outcome, rows=_rows(outcome["states"]))


def _rows(states: Any) -> list[list[str]]:
    """Return a row for each count: its name, then all and unseen tokens at the start, and at the end."""
    counted = [state[of] for state in states for of in ("all", "unseen")]
    return [[name, *(f"{one[key]:,}" for one in counted)] for key, name in COUNT_LABELS.items()]


def training_page(folder: Path, manifest: dict[str, Any]) -> Page:
    """Return the page of a training: counts at the start and the end, and the loss.

    Raises MissingFile if it has not ended or was not recorded; CorruptFile or NoEmbedding for bad files.
    """
    if manifest["status"] not in ENDED:
        raise MissingFile(f"{folder} holds a training that is {manifest['status']}; finish it with --resume first")
    history = History.open(folder)
    with reading(folder / OUTCOME, "the outcome of a training"):
        rows = _rows(_states(folder, history))
    with reading(folder / METRICS_FILE, "the metrics of a training"):
        metrics = pl.read_parquet(folder / METRICS_FILE, columns=["step", "loss"]).drop_nulls()
        metrics = metrics.filter((metrics["step"] > 0) & metrics["loss"].is_finite())
        loss = metrics["loss"].to_list()
        summary = {
            **{"unseen": history.unseen, "n_tokens": history.n_tokens, "hidden_dim": history.dim},
            **{"grid": history.grid.name, "n_measured": 2, "last_step": history.step(history.n_rows - 1)},
        }
        pictures = {"loss": loss_plot(metrics, summary)} if loss else {}
    with reading(folder / "manifest.json", "the manifest of a training"):
        words = page_words("train", **manifest["parameters"])
    remarks = lines_of("training", history=history, loss=loss, diverged=manifest["status"] == "diverged")
    return Page(
        **words, rows=rows, remarks=remarks, pictures=pictures, files=[HISTORY_FILE, METRICS_FILE, "corpus.json"]
    )


def _states(folder: Path, history: History) -> list[dict[str, dict[str, int]]]:
    """Return counts of the first and the last state as the training wrote them; an earlier version wrote none."""
    path = folder / OUTCOME
    if not path.is_file():
        unseen = np.array(history.unseen or (), np.int64)
        ends = (words for _, words in history.words((0, history.n_rows - 1)))
        return [{"all": counts(words), "unseen": counts(words[unseen])} for words in ends]
    first, last = json.loads(path.read_text("utf-8"))["states"]
    return [
        {of: {key: int(state[of][key]) for key in COUNT_LABELS} for of in ("all", "unseen")} for state in (first, last)
    ]


def statistics(records: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return `mean_of` each column, over the replicas that ended."""
    ended = records.filter(records["status"] == "complete")
    columns = [*(f"{of}{key}" for of in COUNT_PREFIXES for key in COUNT_LABELS), *OTHERS]
    return {name: row for name in columns if (row := mean_of(ended[name].drop_nulls()))}


def mean_of(values: pl.Series) -> dict[str, Any] | None:
    """Return n, mean, sample standard deviation, Student's 95% interval of the mean, and range; None for no values.

    The interval assumes a normal distribution, and is None for a single value.
    """
    from scipy.special import stdtrit

    n = len(values)
    if not n:
        return None
    mean, std = float(values.mean()), deviation(values)  # type: ignore[arg-type]
    half = None if std is None else float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    interval = {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    return {"n": n, "mean": mean, "std": std, **interval, "min": values.min(), "max": values.max()}


def spread(row: dict[str, Any] | None) -> str:
    """Format mean and standard deviation, with two digits of the latter."""
    if row is None:
        return ""
    if not row["std"]:
        return number(row["mean"]) + (" ± 0" if row["std"] == 0 else "")
    digits = max(0, 1 - math.floor(math.log10(row["std"])))
    return f"{row['mean']:,.{digits}f} ± {row['std']:,.{digits}f}"


def cells(records: pl.DataFrame) -> list[list[str]]:
    """Return `_rows` of replicas: means with their standard deviations."""
    rows = statistics(records)
    return [[name, *(spread(rows.get(f"{of}{key}")) for of in COUNT_PREFIXES)] for key, name in COUNT_LABELS.items()]


def sentences(records: pl.DataFrame) -> list[str]:
    """Return the sentences below the table."""
    ended = records.filter(records["status"] == "complete")
    return lines_of(
        "replicas",
        rows=statistics(records),
        others=OTHERS,
        spread=spread,
        ended=ended,
        n_unseen=ended["n_unseen"].first(),
        n_held=int((ended["unseen_black_hole_population"] == ended["n_unseen"]).sum()),
        lost=records.filter(records["status"] != "complete")["seed"].to_list(),
        seeds=records["seed"].to_list(),
    )


def print_replicas(records: pl.DataFrame, to: Console) -> None:
    """Print counts of the replicas at start and end, with their spread."""
    values = {"rows": cells(records), "sentences": sentences(records)}
    print_text("replicas", to, last=int(records["steps"].max() or 0), **values)  # type: ignore[arg-type]


def replicas_json(run: Path, records: pl.DataFrame) -> dict[str, Any]:
    """Return the JSON of a run of replicas."""
    return {
        "run": str(run),
        "replicas": len(records),
        "diverged": records.filter(records["status"] != "complete")["seed"].to_list(),
        "confidence": CONFIDENCE,
        "statistics": statistics(records),
        "records": records.to_dicts(),
    }


def replicas_plot(records: Records, curves: pl.DataFrame) -> Plot:
    """Plot C, P, unique rows and largest black hole against the step: replicas thin, their mean thick."""
    titles = {**TITLES, "largest_bh": "tokens in the largest black hole"}
    n = curves["seed"].n_unique()
    thin = {"width": 0.8, "alpha": max(0.12, 0.6 / n**0.5), "stepped": True}
    x = step_axis(curves["step"].unique().sort().to_numpy())
    panels = []
    for column in ("n_black_holes", "black_hole_population", "n_unique", "largest_bh"):
        series = []
        for tokens in ("all", "unseen"):
            frame = curves.filter(curves["tokens"] == tokens)
            look = {key: value for key, value in LOOKS[tokens].items() if key != "width"}
            for _, one in frame.group_by("seed", maintain_order=True):
                series.append(Curve(x=one["step"], y=one[column], **look, **thin))
            mean = frame.group_by("step").agg(pl.col(column).mean()).sort("step")
            label = f"{tokens} tokens"
            series.append(Curve(x=mean["step"], y=mean[column], label=label, **look, width=1.8, stepped=True))
        y = Axis(ends=(0, top_of(series, 1)), whole=True)
        panels.append(Panel(title=titles[column], x=x, y=y, series=series))
    caption = "\n".join(lines_of("replicas_caption", n=n, parameters=records.manifest["parameters"]))
    return Plot(panels=panels, columns=2, height=5.2, caption=caption, key=True)
