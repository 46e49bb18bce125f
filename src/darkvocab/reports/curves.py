"""Curves of a figure as numbers, for a page on which they can be read off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 1000  # of a curve
MOST_NAMELESS = 40  # curves that stand behind the named ones, as of single replicas


def curves(figure: Figure) -> list[dict[str, Any]]:
    """The panels of a figure: titles, scales, and of each curve or row of marks its points, to six digits.

    Bands that `fill_between` drew go with the named curve of their colour. Other shapes are left out.
    """
    shared = (axes.get_xlabel() for axes in reversed(figure.axes))  # of several panels only the lowest say it
    below = next(filter(None, shared), "")
    return [_panel(axes, axes.get_xlabel() or below) for axes in figure.axes if axes.lines]


def _panel(axes: Axes, below: str) -> dict[str, Any]:
    nameless = [line for line in axes.lines if str(line.get_label()).startswith("_")]
    series = []
    for line in [*nameless[:MOST_NAMELESS], *(line for line in axes.lines if line not in nameless)]:
        points = np.asarray(line.get_xydata(), float)
        some = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int))
        named = len(axes.lines) == 1 or line not in nameless
        series.append(
            {
                "label": "" if line in nameless else str(line.get_label()),
                "named": named,
                "colour": _colour(line.get_color()),
                "dash": {"--": "6 3", ":": "2 3"}.get(str(line.get_linestyle()), ""),
                "line": line.get_linestyle() not in ("None", "none", ""),
                "mark": str(line.get_marker()) if line.get_marker() in ("o", "s", "^", ".") else "",
                "stepped": line.get_drawstyle() == "steps-post",
                "faint": line in nameless and len(axes.lines) > 1,
                "x": _numbers(points[some, 0]),
                "y": _numbers(points[some, 1]),
                "band": _band(axes, line.get_color(), points[:, 0], some),
            }
        )
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return {
        "title": axes.get_title(loc="left") or axes.get_title(),
        "x": {"title": below, "ends": _numbers([left, right]), **_scale(axes.xaxis)},
        "y": {"title": axes.get_ylabel(), "ends": _numbers([bottom, top]), **_scale(axes.yaxis)},
        "series": series,
    }


def _scale(axis: Any) -> dict[str, Any]:
    scale = axis.get_scale()
    return {"scale": scale, **({"linear": float(axis.get_transform().linthresh)} if scale == "symlog" else {})}


def _colour(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(colour)


def _band(axes: Axes, colour: Any, x: np.ndarray, some: np.ndarray) -> list[list[float | None]] | None:
    """Lower and upper ends of the band in this colour: a polygon up along one and back along the other."""
    for shape in axes.collections:
        paths = shape.get_paths()
        corners = np.asarray(paths[0].vertices if len(paths) == 1 else np.empty((0, 2)))
        if len(corners) == 2 * len(x) + 3 and _colour(np.asarray(shape.get_facecolor())[0, :3]) == _colour(colour):
            low, high = corners[1 : len(x) + 1, 1], corners[len(x) + 2 : -1, 1][::-1]
            return [_numbers(low[some]), _numbers(high[some])]
    return None


def _numbers(values: Any) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in np.asarray(values, float)]
