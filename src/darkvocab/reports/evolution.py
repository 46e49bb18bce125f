"""Report the evolution of an embedding that `darkvocab evolve` measured: tables, sentences, plots and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from rich.console import Console

from ..errors import MissingFile
from ..measures.tracking import replay
from ..runs.records import reading
from .document import (
    COUNT_LABELS,
    TITLES,
    Page,
    facts_of,
    first_events,
    lines_of,
    page_words,
    phrase,
    print_text,
    rows_of,
)
from .plot import BLACK, BLUE, ORANGE, Axis, Curve, Panel, Plot, around, canvas, top_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..training.evolve import Evolution

FRAMES = [f"{name}.parquet" for name in ("evolution", "events", "tokens")]
EVOLUTION = "evolution.json"  # the last file that `darkvocab evolve` writes
METRICS_FILE = "metrics.parquet"  # of a training
SHOWN_STATES = 12
TOLD_EVENTS = 200  # on a page
# Okabe & Ito (2008).
HOLES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
OTHER = "0.62"  # grey of the other black holes
ODD = "0.5"  # another grey, for every second one of them in a picture
ALONE = "0.93"
LOOKS: dict[str, dict[str, Any]] = {
    "all": {"colour": BLACK, "line": ":", "width": 1.2},
    "seen": {"colour": ORANGE, "line": "-", "width": 1.0},
    "unseen": {"colour": BLUE, "line": "-", "width": 1.2},
}
PRINTED_POINTS = 2000  # of a curve
MOST_COLUMNS = 900  # in a picture
STEP = "optimizer step"


def print_evolution(evolution: Evolution, to: Console) -> None:
    """Print facts, counts at some states from first to last, events, and the notebooks' verdicts."""
    print_text("evolution", to, summary=evolution.summary, **_rows(evolution.records), **first_events(evolution.events))


def _rows(records: pl.DataFrame, shown: int = SHOWN_STATES) -> dict[str, Any]:
    """Return some of the measured states from first to last, early ones more densely, for a template."""
    rows = records["row"].unique().sort().to_numpy()
    n = len(rows)
    some = np.arange(n) if n <= shown else np.unique(np.geomspace(1, n, shown).round().astype(int) - 1)
    chosen = records.filter(records["row"].is_in(rows[some].tolist()))
    return {"rows": chosen.to_dicts(), "counts": COUNT_LABELS}


def evolution_page(folder: Path) -> Page:
    """Return the page of a measured history; raises MissingFile without one, CorruptFile for files of another kind."""
    for name in (EVOLUTION, *FRAMES):
        if not (folder / name).is_file():
            raise MissingFile(f"{folder} holds no measured history ({name}); darkvocab evolve makes one")
    with reading(folder, "what darkvocab evolve left there"):
        summary = json.loads((folder / EVOLUTION).read_text("utf-8"))
        records, events, tokens = (pl.read_parquet(folder / name) for name in FRAMES)
        by_step = holes_by_step(records, events, summary["n_tokens"])
        pictures: dict[str, Plot | Figure] = {
            "counts": counts_plot(records, summary),
            "populations": populations_figure(by_step, tokens, summary),
            "motion": motion_plot(records, summary),
            "spacetime": spacetime_figure(by_step, tokens, summary),
        }
        metrics = [METRICS_FILE] if (folder / METRICS_FILE).is_file() else []
        if metrics:
            losses = pl.read_parquet(folder / METRICS_FILE, columns=["step", "loss"]).drop_nulls()
            losses = losses.filter(losses["step"] > 0)
            pictures |= {"loss": loss_plot(losses, summary)} if len(losses) else {}
        unseen = f", {len(summary['unseen']):,} of them unseen" if summary["unseen"] is not None else ""
        over = f"{summary['n_tokens']:,} tokens{unseen}, over {summary['last_step']:,}"
        return Page(
            **page_words("evolve", of=over),
            facts=facts_of("evolution", summary=summary),
            rows=rows_of("evolution_rows", **_rows(records)),
            pictures=pictures,
            lists=list(_happened(events, summary)),
            files=[EVOLUTION, *FRAMES, *metrics],
        )


def _happened(events: pl.DataFrame, summary: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    if said := lines_of("events", **first_events(events, TOLD_EVENTS)):
        yield "Events", said
    for verdict in summary["verdicts"]:
        yield f"{verdict['seed']}, by the notebook (epsilon {verdict['epsilon']:g})", list(verdict["notebook"])
        yield f"{verdict['seed']}, on the grid", list(verdict["grid"])


@dataclass(frozen=True, kw_only=True)
class HolesByStep:
    """Black hole of every token at some of the measured states."""

    steps: np.ndarray  # [columns] optimizer step of each state
    holes: np.ndarray  # [columns, n_tokens] number of the black hole; 0: alone
    largest: list[int]  # black holes by their area in a picture, descending


def holes_by_step(records: pl.DataFrame, events: pl.DataFrame, n_tokens: int, most: int = MOST_COLUMNS) -> HolesByStep:
    """Replay the events and keep as many states as a picture can show, early ones more densely."""
    rows = records.select("row", "step").unique().sort("row").to_numpy()
    shown = _spaced(len(rows), most)
    changes = {
        row: frame.select("kind", "hole", "other", "tokens").rows()
        for (row,), frame in events.with_columns(events["other"].fill_null(0)).group_by("row", maintain_order=True)
    }
    holes = np.zeros(n_tokens, np.int64)
    kept: list[np.ndarray] = []
    for column, (row, _) in enumerate(rows.tolist()):
        replay(holes, changes.get(row, ()))
        if column == shown[len(kept)]:
            kept.append(holes.copy())
    steps = rows[shown, 1]
    pictured = np.array(kept)
    widths = np.diff(np.log1p(steps) if _is_long(steps) else steps, append=np.nan)
    widths[-1] = widths[:-1].min(initial=1.0)
    numbers, where = np.unique(pictured, return_inverse=True)
    areas = np.bincount(where.ravel(), np.repeat(widths, n_tokens))
    order = numbers[np.lexsort((numbers, -areas))]
    return HolesByStep(steps=steps, holes=pictured, largest=order[order > 0].tolist())


def _spaced(n: int, most: int) -> np.ndarray:
    """Return at most about `most` of n indices, with the first and the last, early ones more densely."""
    if n <= most:
        return np.arange(n)
    early = np.geomspace(1, n, most).round() - 1
    even = np.linspace(0, n - 1, most // 4)
    return np.unique(np.concatenate([early, even]).astype(int))


def _is_long(steps: np.ndarray) -> bool:
    return len(steps) > 1 and bool(steps[-1] > 100 * steps[1])


def step_axis(steps: np.ndarray) -> Axis:
    """Return an axis from the first step to the last; symlog if they span much."""
    axis = Axis(ends=(float(steps[0]), float(max(steps[-1], steps[0] + 1))), label=STEP)
    return replace(axis, scale="symlog", linear=float(steps[1])) if _is_long(steps) else axis


def counts_plot(records: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Plot C, P, unique rows and the largest distance of all, seen and unseen tokens against the step."""
    x = step_axis(records["step"].unique().sort().to_numpy())
    panels = []
    for column in ("n_black_holes", "black_hole_population", "n_unique", "max_l_inf_steps"):
        series = []
        for name, look in LOOKS.items():
            frame = records.filter(records["tokens"] == name)
            frame = frame[_spaced(len(frame), PRINTED_POINTS).tolist()]
            if len(frame):
                series.append(Curve(x=frame["step"], y=frame[column], label=f"{name} tokens", stepped=True, **look))
        scale = "symlog" if column == "max_l_inf_steps" else "linear"
        y = Axis(ends=(0, top_of(series, 1)), scale=scale, whole=scale == "linear")
        panels.append(Panel(title=TITLES[column], x=x, y=y, series=series))
    has_parts = records["tokens"].n_unique() > 1
    return Plot(panels=panels, columns=2, height=5.2, caption=phrase("history", summary=summary), key=has_parts)


def motion_plot(records: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Plot the centroid's distance from its start, and bulk and thermal speed, on log axes."""
    moved: list[Curve] = []
    speeds: list[Curve] = []
    for name, look in LOOKS.items():
        frame = records.filter((records["tokens"] == name) & records["since"].is_not_null())
        if not len(frame):
            continue
        steps = frame["step"].to_numpy()
        elapsed = steps - frame["since"].to_numpy()
        moved.append(_mean_curve(steps, frame["centroid_displacement"].to_numpy(), label=name, **look))
        if name == "all" and records["tokens"].n_unique() > 1:
            continue
        for kind, line in (("bulk", "-"), ("thermal", "--")):
            speed = frame[f"{kind}_motion"].to_numpy() / elapsed
            # Marks show single values between zeros.
            marked = {"colour": look["colour"], "line": line, "mark": "o", "size": 2}
            speeds.append(_mean_curve(steps, speed, label=f"{name}, {kind}", **marked))
    panels = [
        _log_panel("centroid's distance from its start", "weight units", moved),
        _log_panel("bulk and thermal speed (0 is not drawn)", "weight units per step", speeds),
    ]
    return Plot(panels=panels, columns=2, height=3.3, caption=phrase("history", summary=summary))


def _log_panel(title: str, label: str, series: list[Curve]) -> Panel:
    x = around(np.concatenate([[], *(one.x for one in series)]), STEP, "log")
    values = np.concatenate([[], *(one.y for one in series)])
    if np.isfinite(values).any():
        return Panel(title=title, x=x, y=around(values, label, "log"), series=series, legend="best")
    return Panel(title=title, x=x, y=around(values, label), series=series, note="nothing moved")


def _mean_curve(steps: np.ndarray, values: np.ndarray, bins: int = 120, **look: Any) -> Curve:
    """Return means over intervals that grow with the step; 0 becomes NaN, which is not drawn."""
    far = np.log(steps / steps[0])
    _, where = np.unique(np.minimum(far * bins // max(far[-1], 1e-9), bins - 1), return_inverse=True)
    counts = np.bincount(where)
    mean = np.bincount(where, values) / counts
    return Curve(x=np.bincount(where, steps) / counts, y=np.where(mean > 0, mean, np.nan), **look)


def loss_plot(metrics: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Plot the training loss against the step, with means over intervals that grow with the step."""
    steps, loss = metrics.select("step", "loss").to_numpy().astype(float).T
    some = _spaced(len(steps), PRINTED_POINTS)
    series = [
        Curve(x=steps[some], y=loss[some], label="of a step", line="", mark="o", size=1.75, alpha=0.35),
        _mean_curve(steps, loss, label="mean", colour=BLACK, width=1.1),
    ]
    y = around(loss, "cross-entropy (nats per token)")
    panel = Panel(title="training loss", x=around(steps, STEP, "log"), y=y, series=series, legend="best")
    return Plot(panels=[panel], height=3.3, caption=phrase("history", summary=summary))


def populations_figure(by_step: HolesByStep, tokens: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Draw the populations of the black holes, stacked: the largest in colour, the others in greys."""
    sets = {"all tokens": np.ones(len(tokens), bool)}
    if _has_unseen(tokens):
        sets["unseen tokens"] = ~tokens["seen"].to_numpy()
    coloured = by_step.largest[: len(HOLES)]
    colours = [*HOLES[: len(coloured)], OTHER, ALONE]
    with canvas(phrase("history", summary=summary), 0.7 + 2.3 * len(sets), **{"axes.grid": False}) as figure:
        axes = figure.subplots(len(sets), 1, sharex=True, squeeze=False).ravel()
        for panel, (name, chosen) in zip(axes, sets.items(), strict=True):
            holes = by_step.holes[:, chosen]
            layers = [(holes == hole).sum(axis=1) for hole in coloured]
            in_holes = (holes > 0).sum(axis=1)
            layers += [in_holes - np.sum(layers, axis=0) if layers else in_holes, holes.shape[1] - in_holes]
            tops = np.cumsum(layers, axis=0)
            for layer, top, colour in zip(layers, tops, colours, strict=True):
                look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.15}
                panel.fill_between(by_step.steps, top - layer, top, step="post", **look)
            panel.set(title=f"{name}, by black hole", ylabel="tokens", ylim=(0, max(holes.shape[1], 1)))
            step_axis(by_step.steps).apply(panel, "x")
        for panel in axes[:-1]:
            panel.set_xlabel("")
        figure.legend(handles=_key(by_step), loc="outside right upper")
    return figure


def spacetime_figure(by_step: HolesByStep, tokens: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Draw the black hole of each token at each step; only of the unseen tokens, if there are any."""
    from matplotlib.colors import ListedColormap

    unseen = _has_unseen(tokens)
    chosen = np.flatnonzero(~tokens["seen"].to_numpy()) if unseen else np.arange(len(tokens))
    colours = [*HOLES, OTHER, ODD, ALONE]
    place = len(HOLES) + np.arange(max(by_step.largest, default=0) + 1) % 2
    place[by_step.largest[: len(HOLES)]] = np.arange(min(len(by_step.largest), len(HOLES)))
    place[0] = len(colours) - 1
    holes = by_step.holes[:, chosen]
    # Tokens with the same last black hole are neighbours; among them, those that shared the one before, and so on.
    order = np.lexsort(holes[:: max(1, len(holes) // 60)])
    last = by_step.steps[-1]
    edges = np.append(by_step.steps, last + max(1, last - by_step.steps[-2] if len(by_step.steps) > 1 else 1))
    with canvas(phrase("history", summary=summary), 4.4, **{"axes.grid": False}) as figure:
        panel = figure.subplots()
        picture = place[holes[:, order]].T
        shades: dict[str, Any] = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": len(colours) - 0.5}
        panel.pcolormesh(edges, np.arange(len(chosen) + 1), picture, rasterized=True, **shades)
        if len(chosen) <= 64:
            panel.set_yticks(np.arange(len(chosen)) + 0.5, [str(token) for token in chosen[order]], fontsize=5)
        panel.invert_yaxis()
        panel.set_title(f"black hole of each {'unseen ' if unseen else ''}token")
        panel.set_ylabel("token id" if len(chosen) <= 64 else "tokens, in order of their last black hole")
        step_axis(edges).apply(panel, "x")
        figure.legend(handles=_key(by_step), loc="outside right upper")
    return figure


def _has_unseen(tokens: pl.DataFrame) -> bool:
    """Say whether some tokens are known to be unseen."""
    return tokens["seen"].null_count() == 0 and not tokens["seen"].all()


def _key(by_step: HolesByStep) -> list[Any]:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, label=f"#{hole}") for hole, c in zip(by_step.largest, HOLES, strict=False)]
    if left := len(by_step.largest) - len(handles):
        handles.append(Patch(facecolor=OTHER, label=f"{left:,} more"))
    return [*handles, Patch(facecolor=ALONE, edgecolor="0.7", linewidth=0.5, label="alone")]
