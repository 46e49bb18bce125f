"""Where the replicas of a training ended: means with their error, a table, and a figure of the way there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..runs.records import Records
from .console import number, show
from .evolution_figures import LOOKS, STEP, stretch
from .figures import STYLE

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

CONFIDENCE = 0.95  # of the intervals of means
COUNTED = {
    "n_unique": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "largest_bh": "largest black hole",
}
COLUMNS = ("start_", "start_unseen_", "", "unseen_")  # what stands before these names in the records
OTHERS = {
    "loss_last_100": "loss, mean of the last 100 steps",
    "centroid_displacement": "displacement of the centroid",
    "unseen_max_l_inf": "max L-inf of unseen tokens",
    "unseen_mean_l_inf": "mean L-inf of unseen tokens",
    "unseen_max_l_inf_steps": "max L-inf of unseen tokens in grid steps",
}


def statistics(records: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Mean, sample standard deviation, range, and Student's 95% interval of the mean, by column.

    Over the replicas that ended; an interval is null for fewer than two, and supposes that replicas are normal.
    """
    from scipy.special import stdtrit

    ended, made = records.filter(records["status"] == "complete"), {}
    for name in [*(f"{of}{key}" for of in COLUMNS for key in COUNTED), *OTHERS]:
        values = ended[name].drop_nulls()
        n, mean = len(values), values.mean()
        if mean is None:
            continue
        std = None if n < 2 else 0.0 if values.min() == values.max() else float(values.std())  # type: ignore[arg-type]
        half = None if std is None else float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
        made[name] = {
            "n": n,
            "mean": float(mean),  # type: ignore[arg-type]
            "std": std,
            "low": None if half is None else float(mean) - half,  # type: ignore[arg-type]
            "high": None if half is None else float(mean) + half,  # type: ignore[arg-type]
            "min": values.min(),
            "max": values.max(),
        }
    return made


def _spread(row: dict[str, Any] | None) -> str:
    """Mean and standard deviation, to the digits that the latter has."""
    if row is None:
        return ""
    if not row["std"]:
        return number(row["mean"]) + (" ± 0" if row["std"] == 0 else "")
    digits = max(0, 1 - math.floor(math.log10(row["std"])))
    return f"{row['mean']:,.{digits}f} ± {row['std']:,.{digits}f}"


def cells(records: pl.DataFrame) -> list[list[str]]:
    """The counts for people: name, then all and unseen tokens at the start, and at the end."""
    made = statistics(records)
    return [[name, *(_spread(made.get(f"{of}{key}")) for of in COLUMNS)] for key, name in COUNTED.items()]


def sentences(records: pl.DataFrame) -> Iterator[str]:
    """What the table does not say."""
    made, n = statistics(records), len(records)
    ended = records.filter(records["status"] == "complete")
    for name, what in OTHERS.items():
        if name in made:
            yield f"{what} {_spread(made[name])}"
    if len(ended) and not ended["n_unseen"][0]:
        yield "no token is unseen: the text has them all"
    elif len(ended):
        held = int((ended["unseen_black_hole_population"] == ended["n_unseen"]).sum())
        yield f"every unseen token ({ended['n_unseen'][0]:,}) in a black hole in {held:,} of {len(ended):,} replicas"
    if lost := records.filter(records["status"] != "complete")["seed"].to_list():
        yield f"diverged, and left out here: seed {', '.join(map(str, lost))}"
    seeds = records["seed"].to_list()
    yield f"{n:,} replicas, seeds {min(seeds)} to {max(seeds)}; ± is the sample standard deviation from one to another"


def print_replicas(records: pl.DataFrame, to: Console) -> None:
    """Where the replicas started and ended, with their spread."""
    last = int(records["steps"].max() or 0)  # type: ignore[arg-type]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("step 0", "unseen", f"step {last:,}", "unseen"):
        table.add_column(heading, justify="right")
    for row in cells(records):
        table.add_row(*row)
    show(table, to)
    for sentence in sentences(records):
        to.print(sentence, soft_wrap=not to.is_terminal)


def replicas_json(run: Path, records: pl.DataFrame) -> dict[str, Any]:
    """What `--json` says of a run of replicas."""
    return {
        "run": str(run),
        "replicas": len(records),
        "diverged": records.filter(records["status"] != "complete")["seed"].to_list(),
        "confidence": CONFIDENCE,
        "statistics": statistics(records),
        "records": records.to_dicts(),
    }


def replicas_figure(records: Records, curves: pl.DataFrame) -> Figure:
    """C, P, unique rows and the largest black hole against the step: each replica thin, their mean thick."""
    import matplotlib
    import polars as pl
    from matplotlib.figure import Figure

    panels = (
        ("black holes, C", "n_black_holes"),
        ("tokens in black holes, P", "black_hole_population"),
        ("unique rows", "n_unique"),
        ("tokens in the largest black hole", "largest_bh"),
    )
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 5.2), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True).ravel()
        n = curves["seed"].n_unique()
        faint = max(0.12, 0.6 / n**0.5)
        for panel, (title, column) in zip(axes, panels, strict=True):
            for tokens in ("all", "unseen"):
                frame = curves.filter(curves["tokens"] == tokens)
                look = {**LOOKS[tokens], "drawstyle": "steps-post"}
                for _, one in frame.group_by("seed", maintain_order=True):
                    panel.plot(one["step"], one[column], **{**look, "linewidth": 0.8, "alpha": faint})
                mean = frame.group_by("step").agg(pl.col(column).mean()).sort("step")
                panel.plot(mean["step"], mean[column], label=f"{tokens} tokens", **{**look, "linewidth": 1.8})
            panel.set_title(title)
            panel.set_ylim(0, 1.06 * max(panel.dataLim.ymax, 1))
            stretch(panel, curves["step"].unique().sort().to_numpy())
            panel.yaxis.get_major_locator().set_params(integer=True)
        for panel in axes[2:]:
            panel.set_xlabel(STEP)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=2)
        parameters = records.manifest["parameters"]
        noise = parameters["noise"]
        if noise != "none":
            noise = f"{noise} noise of {parameters['noise_sigma']:g} on {parameters['noise_rows']} rows at every step"
        text = (
            f"{n:,} trainings of {parameters['vocabulary']:,} tokens x {parameters['width']:,} from a "
            f"{parameters['start']} start, {parameters['n_unseen']:,} tokens unseen; {parameters['precision']}, "
            f"{parameters['steps']:,} steps\n{'no noise' if noise == 'none' else noise}; each replica thin, "
            "their mean thick"
        )
        figure.suptitle(text, fontsize=8, x=0.01, ha="left", parse_math=False)
    return figure
