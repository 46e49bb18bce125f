"""The evolution of an embedding: tables, sentences, plots and pictures of what `darkvocab evolve` recorded."""

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
from .document import COUNTS, TITLES, Page, facts_of, lines_of, page_words, phrase, print_text, rows_of, told
from .plot import BLACK, BLUE, ORANGE, Axis, Panel, Plot, Series, around, canvas, top_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..training.evolve import Evolution

READ = ("evolution", "events", "tokens")  # frames
EVOLUTION = "evolution.json"  # what `darkvocab evolve` writes last
METRICS = "metrics.parquet"  # what a training leaves
SHOWN_ROWS = 12
TOLD_EVENTS = 200  # on a page
# Okabe & Ito (2008), from dark to light where they lie side by side.
HOLES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
OTHER, ODD = "0.62", "0.5"  # two greys, so that neighbours can be told apart
ALONE = "0.93"
LOOKS: dict[str, dict[str, Any]] = {
    "all": {"colour": BLACK, "line": ":", "width": 1.2},
    "seen": {"colour": ORANGE, "line": "-", "width": 1.0},
    "unseen": {"colour": BLUE, "line": "-", "width": 1.2},
}
MOST_POINTS = 2000  # of a curve
MOST_COLUMNS = 900  # of a picture
STEP = "optimizer step"


def print_evolution(evolution: Evolution, to: Console) -> None:
    """Print what became of the tokens: facts, some rows from first to last, events, and the notebooks' verdicts."""
    print_text("evolution", to, summary=evolution.summary, **_rows(evolution.records), **told(evolution.events))


def _rows(records: pl.DataFrame, shown: int = SHOWN_ROWS) -> dict[str, Any]:
    """Return first, some and last measured rows for a template: early ones more densely."""
    rows = records["row"].unique().sort().to_numpy()
    n = len(rows)
    some = np.arange(n) if n <= shown else np.unique(np.geomspace(1, n, shown).round().astype(int) - 1)
    chosen = records.filter(records["row"].is_in(rows[some].tolist()))
    return {"rows": chosen.to_dicts(), "counts": COUNTS}


def evolution_page(folder: Path) -> Page:
    """Return the page of a measured history; MissingFile without one, CorruptFile where files are not its own."""
    frames = [f"{name}.parquet" for name in READ]
    for name in (EVOLUTION, *frames):
        if not (folder / name).is_file():
            raise MissingFile(f"{folder} holds no measured history ({name}); darkvocab evolve makes one")
    with reading(folder, "what darkvocab evolve left there"):
        summary = json.loads((folder / EVOLUTION).read_text("utf-8"))
        records, events, tokens = (pl.read_parquet(folder / name) for name in frames)
        by_step = holes_by_step(records, events, summary["n_tokens"])
        pictures: dict[str, Plot | Figure] = {
            "counts": counts_plot(records, summary),
            "populations": populations_figure(by_step, tokens, summary),
            "motion": motion_plot(records, summary),
            "spacetime": spacetime_figure(by_step, tokens, summary),
        }
        metrics = [METRICS] if (folder / METRICS).is_file() else []
        if metrics:
            losses = pl.read_parquet(folder / METRICS, columns=["step", "loss"]).drop_nulls()
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
            files=[EVOLUTION, *frames, *metrics],
        )


def _happened(events: pl.DataFrame, summary: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    if said := lines_of("events", **told(events, TOLD_EVENTS)):
        yield "Events", said
    for verdict in summary["verdicts"]:
        yield f"{verdict['seed']}, by the notebook (epsilon {verdict['epsilon']:g})", list(verdict["notebook"])
        yield f"{verdict['seed']}, on the grid", list(verdict["grid"])


@dataclass(frozen=True, kw_only=True)
class HolesByStep:
    """The black hole of every token at some of the measured rows."""

    steps: np.ndarray  # [columns] of the rows shown
    holes: np.ndarray  # [columns, n_tokens] 0 for tokens that stand alone
    largest: list[int]  # black holes by the area that they take in a picture, descending


def holes_by_step(records: pl.DataFrame, events: pl.DataFrame, n_tokens: int, most: int = MOST_COLUMNS) -> HolesByStep:
    """Replay the events and keep as many rows as a picture can show, early ones more densely."""
    rows = records.select("row", "step").unique().sort("row").to_numpy()
    shown = _spaced(len(rows), most)
    changes = {
        row: frame.select("kind", "hole", "other", "tokens").rows()
        for (row,), frame in events.with_columns(events["other"].fill_null(0)).group_by("row", maintain_order=True)
    }
    holes = np.zeros(n_tokens, np.int64)
    kept = []
    columns = set(shown.tolist())
    for column, (row, _) in enumerate(rows.tolist()):
        if row in changes:
            replay(holes, changes[row])
        if column in columns:
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
    """Indices of the rows to draw: all, or the first, the last, and more early than late ones."""
    if n <= most:
        return np.arange(n)
    early = np.geomspace(1, n, most).round() - 1
    even = np.linspace(0, n - 1, most // 4)
    return np.unique(np.concatenate([early, even]).astype(int))


def _is_long(steps: np.ndarray) -> bool:
    return len(steps) > 1 and bool(steps[-1] > 100 * steps[1])


def step_axis(steps: np.ndarray) -> Axis:
    """Return an axis from the first step to the last, where these are many a log one."""
    axis = Axis(ends=(float(steps[0]), float(max(steps[-1], steps[0] + 1))), label=STEP)
    return replace(axis, scale="symlog", linear=float(steps[1])) if _is_long(steps) else axis


def counts_plot(records: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Draw C, P, unique rows and largest distance of all, seen and unseen tokens against the step."""
    x = step_axis(records["step"].unique().sort().to_numpy())
    panels = []
    for column in ("n_black_holes", "black_hole_population", "n_unique", "max_l_inf_steps"):
        series = []
        for name, look in LOOKS.items():
            frame = records.filter(records["tokens"] == name)
            frame = frame[_spaced(len(frame), MOST_POINTS).tolist()]
            if len(frame):
                series.append(Series(x=frame["step"], y=frame[column], label=f"{name} tokens", stepped=True, **look))
        scale = "symlog" if column == "max_l_inf_steps" else "linear"
        y = Axis(ends=(0, top_of(series, 1)), scale=scale, whole=scale == "linear")
        panels.append(Panel(title=TITLES[column], x=x, y=y, series=series))
    several = records["tokens"].n_unique() > 1
    return Plot(panels=panels, columns=2, height=5.2, caption=_caption(summary), key=several)


def motion_plot(records: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Draw the distance of the centroid from its start, bulk and thermal speed, on log axes."""
    moved: list[Series] = []
    speeds: list[Series] = []
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
            # A mark shows a value that is alone between zeros.
            marked = {"colour": look["colour"], "line": line, "mark": "o", "size": 2}
            speeds.append(_mean_curve(steps, speed, label=f"{name}, {kind}", **marked))
    panels = [
        _log_panel("centroid's distance from its start", "weight units", moved),
        _log_panel("bulk and thermal speed (0 is not drawn)", "weight units per step", speeds),
    ]
    return Plot(panels=panels, columns=2, height=3.3, caption=_caption(summary))


def _log_panel(title: str, label: str, series: list[Series]) -> Panel:
    x = around(np.concatenate([[], *(one.x for one in series)]), STEP, "log")
    values = np.concatenate([[], *(one.y for one in series)])
    moves = bool(np.isfinite(values).any())
    y = around(values, label, "log" if moves else "linear")
    note, legend = ("", "best") if moves else ("nothing moved", "")
    return Panel(title=title, x=x, y=y, series=series, note=note, legend=legend)


def _mean_curve(steps: np.ndarray, values: np.ndarray, bins: int = 120, **look: Any) -> Series:
    """Means over stretches of steps that grow with the step; NaN, which is not drawn, for 0."""
    far = np.log(steps / steps[0])
    _, where = np.unique(np.minimum(far * bins // max(far[-1], 1e-9), bins - 1), return_inverse=True)
    counts = np.bincount(where)
    mean = np.bincount(where, values) / counts
    return Series(x=np.bincount(where, steps) / counts, y=np.where(mean > 0, mean, np.nan), **look)


def loss_plot(metrics: pl.DataFrame, summary: dict[str, Any]) -> Plot:
    """Draw the training loss against the step: of each step, and means over stretches that grow with it."""
    steps, loss = metrics.select("step", "loss").to_numpy().astype(float).T
    some = _spaced(len(steps), MOST_POINTS)
    series = [
        Series(x=steps[some], y=loss[some], label="of a step", line="", mark="o", size=1.75, alpha=0.35),
        _mean_curve(steps, loss, label="mean", colour=BLACK, width=1.1),
    ]
    y = around(loss, "cross-entropy (nats per token)")
    panel = Panel(title="training loss", x=around(steps, STEP, "log"), y=y, series=series, legend="best")
    return Plot(panels=[panel], height=3.3, caption=_caption(summary))


def populations_figure(by_step: HolesByStep, tokens: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Draw the populations of the black holes, stacked: the largest in colour, the others in greys."""
    sets = {"all tokens": np.ones(len(tokens), bool)}
    if _has_unseen(tokens):
        sets["unseen tokens"] = ~tokens["seen"].to_numpy()
    coloured = by_step.largest[: len(HOLES)]
    colours = [*HOLES[: len(coloured)], OTHER, ALONE]
    with canvas(_caption(summary), 0.7 + 2.3 * len(sets), **{"axes.grid": False}) as figure:
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
    """Draw the black hole of each token at each step; only of unseen tokens, where these are known."""
    from matplotlib.colors import ListedColormap

    unseen = _has_unseen(tokens)
    chosen = np.flatnonzero(~tokens["seen"].to_numpy()) if unseen else np.arange(len(tokens))
    colours = [*HOLES, OTHER, ODD, ALONE]
    place = len(HOLES) + np.arange(max(by_step.largest, default=0) + 1) % 2
    place[by_step.largest[: len(HOLES)]] = np.arange(min(len(by_step.largest), len(HOLES)))
    place[0] = len(colours) - 1
    holes = by_step.holes[:, chosen]
    # Tokens that end together stand together; of these, those that were together longest.
    order = np.lexsort(holes[:: max(1, len(holes) // 60)])
    last = by_step.steps[-1]
    edges = np.append(by_step.steps, last + max(1, last - by_step.steps[-2] if len(by_step.steps) > 1 else 1))
    with canvas(_caption(summary), 4.4, **{"axes.grid": False}) as figure:
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
    """Return whether it is known which tokens are unseen, and some are."""
    return tokens["seen"].null_count() == 0 and not tokens["seen"].all()


def _key(by_step: HolesByStep) -> list[Any]:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, label=f"#{hole}") for hole, c in zip(by_step.largest, HOLES, strict=False)]
    if left := len(by_step.largest) - len(handles):
        handles.append(Patch(facecolor=OTHER, label=f"{left:,} more"))
    return [*handles, Patch(facecolor=ALONE, edgecolor="0.7", linewidth=0.5, label="alone")]


def _caption(summary: dict[str, Any]) -> str:
    return phrase("history", summary=summary)
