"""Figures of the evolution of an embedding, from what `darkvocab evolve` recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measures.tracking import replay
from .figures import BLACK, BLUE, ORANGE, STYLE

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), from dark to light where they lie side by side.
HOLES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
OTHER, ODD, ALONE = "0.62", "0.5", "0.93"  # two greys, so that neighbours among the others can be told apart
LOOKS: dict[str, dict[str, Any]] = {
    "all": {"color": BLACK, "linestyle": ":", "linewidth": 1.2},
    "seen": {"color": ORANGE, "linestyle": "-", "linewidth": 1.0},
    "unseen": {"color": BLUE, "linestyle": "-", "linewidth": 1.2},
}
MOST_POINTS, MOST_COLUMNS = 2000, 900  # drawn of a curve, of a picture
STEP = "optimizer step"


@dataclass(frozen=True, kw_only=True)
class Told:
    """The black holes of every token at some of the measured rows, told again from the events."""

    steps: np.ndarray  # [columns] of the rows shown
    holes: np.ndarray  # [columns, n_tokens] 0 for tokens that stand alone
    rank: dict[int, int]  # of each black hole in them by the area that it takes in a picture, from 0

    def colour(self, hole: int) -> str:
        return HOLES[self.rank[hole]] if self.rank[hole] < len(HOLES) else OTHER


def tell(records: pl.DataFrame, events: pl.DataFrame, n_tokens: int, most: int = MOST_COLUMNS) -> Told:
    """Replay the events, and keep as many rows as a picture can show: early ones more densely."""
    rows = records.select("row", "step").unique().sort("row").to_numpy()
    shown = _spaced(len(rows), most)
    holes, kept = np.zeros(n_tokens, np.int64), []
    changes = {
        row: frame.select("kind", "hole", "other", "tokens").rows()
        for (row,), frame in events.with_columns(events["other"].fill_null(0)).group_by("row", maintain_order=True)
    }
    columns = set(shown.tolist())
    for column, (row, _) in enumerate(rows.tolist()):
        if row in changes:
            replay(holes, changes[row])
        if column in columns:
            kept.append(holes.copy())
    steps, pictured = rows[shown, 1], np.array(kept)
    widths = np.diff(np.log1p(steps) if _is_long(steps) else steps, append=np.nan)
    widths[-1] = widths[:-1].min(initial=1.0)
    numbers, where = np.unique(pictured, return_inverse=True)
    areas = np.bincount(where.ravel(), np.repeat(widths, n_tokens))
    order = numbers[np.lexsort((numbers, -areas))]
    return Told(
        steps=steps,
        holes=pictured,
        rank={hole: place for place, hole in enumerate(order[order > 0].tolist())},
    )


def _spaced(n: int, most: int) -> np.ndarray:
    """Which of n rows to draw: all, or the first, the last, and between them more of the early ones."""
    if n <= most:
        return np.arange(n)
    return np.unique(
        np.concatenate([np.geomspace(1, n, most).round().astype(int) - 1, np.linspace(0, n - 1, most // 4)]).astype(int)
    )


def _is_long(steps: np.ndarray) -> bool:
    """Whether steps need a log axis."""
    return len(steps) > 1 and bool(steps[-1] > 100 * steps[1])


def stretch(panel: Axes, steps: np.ndarray) -> None:
    """Steps on a log axis where there are many, with room for step 0."""
    panel.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    if _is_long(steps):
        panel.set_xscale("symlog", linthresh=float(steps[1]), linscale=0.4)


def counts_figure(records: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """C, P and unique rows of all, seen and unseen tokens against the step, and how far apart tokens lie."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = (
        ("black holes, C", "n_black_holes"),
        ("tokens in black holes, P", "black_hole_population"),
        ("unique rows", "n_unique"),
        ("largest L-infinity of all pairs (grid steps)", "max_l_inf_steps"),
    )
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 5.2), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True).ravel()
        for panel, (title, column) in zip(axes, panels, strict=True):
            for name, frame in _selections(records):
                panel.plot(frame["step"], frame[column], drawstyle="steps-post", label=name, **LOOKS[name])
            panel.set_title(title)
            panel.set_ylim(0, 1.06 * max(panel.dataLim.ymax, 1))
            stretch(panel, records["step"].unique().sort().to_numpy())
        axes[-1].set_yscale("symlog", linthresh=1, linscale=0.4)
        for panel in axes[2:]:
            panel.set_xlabel(STEP)
        for panel in axes[:3]:
            panel.yaxis.get_major_locator().set_params(integer=True)
        if records["tokens"].n_unique() > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, [f"{label} tokens" for label in labels], loc="outside lower right", ncols=3)
        _say(figure, summary)
    return figure


def _selections(records: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Records of each set of tokens, as many as a curve can show."""
    for name in LOOKS:
        frame = records.filter(records["tokens"] == name)
        if len(frame):
            yield name, frame[_spaced(len(frame), MOST_POINTS).tolist()]


def populations_figure(told: Told, tokens: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Populations of the black holes as a stacked area: the largest by colour, the others grey, tokens alone light."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    sets = {"all tokens": np.ones(len(tokens), bool)}
    if tokens["seen"].null_count() == 0 and not tokens["seen"].all():
        sets["unseen tokens"] = ~tokens["seen"].to_numpy()
    style: dict[str, Any] = {**STYLE, "axes.grid": False}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 0.7 + 2.3 * len(sets)), layout="constrained")
        axes = figure.subplots(len(sets), 1, sharex=True, squeeze=False).ravel()
        for panel, (name, chosen) in zip(axes, sets.items(), strict=True):
            holes = told.holes[:, chosen]
            coloured = [hole for hole, place in told.rank.items() if place < len(HOLES)]
            layers = [(holes == hole).sum(axis=1) for hole in coloured]
            together = (holes > 0).sum(axis=1)
            layers += [together - np.sum(layers, axis=0) if layers else together, holes.shape[1] - together]
            colours = [told.colour(hole) for hole in coloured] + [OTHER, ALONE]
            bottom = np.zeros(len(told.steps))
            for layer, colour in zip(layers, colours, strict=True):
                panel.fill_between(
                    told.steps, bottom, bottom + layer, step="post", facecolor=colour, edgecolor="white", linewidth=0.15
                )
                bottom = bottom + layer
            panel.set_title(f"{name}, by black hole")
            panel.set_ylabel("tokens")
            panel.set_ylim(0, max(holes.shape[1], 1))
            stretch(panel, told.steps)
        axes[-1].set_xlabel(STEP)
        figure.legend(handles=_key(told, Patch), loc="outside right upper")
        _say(figure, summary)
    return figure


def _key(told: Told, patch: Any) -> list[Any]:
    """What the colours of black holes mean."""
    handles = [patch(facecolor=told.colour(h), label=f"#{h}") for h, place in told.rank.items() if place < len(HOLES)]
    if len(told.rank) > len(HOLES):
        handles.append(patch(facecolor=OTHER, label=f"{len(told.rank) - len(HOLES):,} more"))
    return [*handles, patch(facecolor=ALONE, edgecolor="0.7", linewidth=0.5, label="alone")]


def motion_figure(records: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """How far the centroid is from its start, and how fast the cloud and the tokens in it move, on log axes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in LOOKS:
            frame = records.filter((records["tokens"] == name) & records["since"].is_not_null())
            if not len(frame):
                continue
            look = LOOKS[name]
            steps, apart = frame["step"].to_numpy(), (frame["step"] - frame["since"]).to_numpy()
            left.plot(*_binned(steps, frame["centroid_displacement"].to_numpy()), label=name, **look)
            if name == "all" and records["tokens"].n_unique() > 1:
                continue
            for column, label, style in (("bulk_motion", "bulk", "-"), ("thermal_motion", "thermal", "--")):
                speed = frame[column].to_numpy() / apart
                right.plot(
                    *_binned(steps, speed),
                    color=look["color"],
                    linestyle=style,
                    linewidth=1,
                    marker=".",  # for one that is alone between zeros
                    markersize=2,
                    label=f"{name}, {label}",
                )
        left.set_title("centroid's distance from its start")
        left.set_ylabel("weight units")
        right.set_title("bulk and thermal speed (0 is not drawn)")
        right.set_ylabel("weight units per step")
        for panel in (left, right):
            panel.set_xlabel(STEP)
            panel.set_xscale("log")
            if panel.dataLim.ymax > 0 and np.isfinite(panel.dataLim.ymax):
                panel.set_yscale("log")
                panel.legend(loc="best")
            else:
                panel.text(0.5, 0.5, "nothing moved", transform=panel.transAxes, ha="center")
        _say(figure, summary)
    return figure


def _binned(steps: np.ndarray, values: np.ndarray, bins: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Means over stretches of steps that grow with the step; nan, and so not drawn, where all is 0."""
    far = np.log(steps / steps[0])
    _, where = np.unique(np.minimum(far * bins // max(far[-1], 1e-9), bins - 1), return_inverse=True)
    counts = np.bincount(where)
    mean = np.bincount(where, values) / counts
    return np.bincount(where, steps) / counts, np.where(mean > 0, mean, np.nan)


def spacetime_figure(told: Told, tokens: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Which black hole each unseen token (each token, where nobody says which are unseen) is in at each step."""
    import matplotlib
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    unseen = tokens["seen"].null_count() == 0 and not tokens["seen"].all()
    chosen = np.flatnonzero(~tokens["seen"].to_numpy()) if unseen else np.arange(len(tokens))
    colours = [*HOLES, OTHER, ODD, ALONE]
    place = np.zeros(max(told.rank, default=0) + 1, np.int64)
    for hole, rank in told.rank.items():
        place[hole] = rank if rank < len(HOLES) else len(HOLES) + hole % 2
    place[0] = len(colours) - 1
    holes = told.holes[:, chosen]
    # Tokens that end together stand together; of these, those that were together longest.
    chosen_order = np.lexsort(holes[:: max(1, len(holes) // 60)])
    picture = place[holes[:, chosen_order]].T
    edges = np.append(
        told.steps, told.steps[-1] + max(1, told.steps[-1] - told.steps[-2] if len(told.steps) > 1 else 1)
    )
    style: dict[str, Any] = {**STYLE, "axes.grid": False}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 4.4), layout="constrained")
        panel = figure.subplots()
        panel.pcolormesh(
            edges,
            np.arange(len(chosen) + 1),
            picture,
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(colours) - 0.5,
            rasterized=True,
        )
        if len(chosen) <= 64:
            panel.set_yticks(np.arange(len(chosen)) + 0.5, [str(token) for token in chosen[chosen_order]], fontsize=5)
        panel.invert_yaxis()
        panel.set_title(f"black hole of each {'unseen ' if unseen else ''}token")
        panel.set_ylabel("token id" if len(chosen) <= 64 else "tokens, in order of their last black hole")
        panel.set_xlabel(STEP)
        stretch(panel, edges)
        figure.legend(handles=_key(told, Patch), loc="outside right upper")
        _say(figure, summary)
    return figure


def loss_figure(metrics: pl.DataFrame, summary: dict[str, Any]) -> Figure:
    """Training loss against the step: every step light, its mean over stretches that grow with the step dark."""
    import matplotlib
    from matplotlib.figure import Figure

    steps, loss = metrics["step"].to_numpy().astype(float), metrics["loss"].to_numpy().astype(float)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 3.3), layout="constrained")
        panel = figure.subplots()
        some = _spaced(len(steps), MOST_POINTS)
        panel.plot(steps[some], loss[some], ".", color=BLUE, markersize=1.5, alpha=0.35, label="of a step")
        panel.plot(*_binned(steps, loss), color=BLACK, linewidth=1.1, label="mean")
        panel.set_xscale("log")
        panel.set_title("training loss")
        panel.set_ylabel("cross-entropy (nats per token)")
        panel.set_xlabel(STEP)
        panel.legend(loc="best", markerscale=4)
        _say(figure, summary)
    return figure


def _say(figure: Figure, summary: dict[str, Any]) -> None:
    """What was measured, above the panels."""
    unseen = summary["unseen"]
    text = (
        f"{summary['n_tokens']:,} tokens x {summary['hidden_dim']:,} on {summary['grid']}"
        f"{'' if unseen is None else f', {len(unseen):,} of them unseen in training'}; {summary['n_measured']:,} rows "
        f"to step {summary['last_step']:,}"
    )
    figure.suptitle(text, fontsize=8, x=0.01, ha="left", parse_math=False)
