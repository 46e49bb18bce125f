"""Plots as data, which matplotlib draws for print and `curves.js` on a page; style and saving of printed figures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InvalidInput
from ..landing import write_whole
from ..text import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

# Okabe & Ito (2008): distinct for colour-blind readers, and in grey.
BLUE, ORANGE, BLACK = "#0072b2", "#e69f00", "#000000"
WIDTH = 7.0  # inches: of a page
DPI = 200  # of a PNG
WITHOUT_TIME: dict[str, Any] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
PAGE_POINTS = 1000  # of a series on a page
MOST_NAMELESS = 40  # curves without a label on a page, such as single replicas
MARGIN = 0.05  # share of an axis's length on either side of the values
LEGEND_MARK = 4.0  # points


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a panel: its ends, label and scale."""

    ends: tuple[float, float]
    label: str = ""
    scale: str = "linear"  # linear, log, or symlog
    linear: float = 1.0  # symlog: linear up to this distance from 0
    whole: bool = False  # print: ticks at whole numbers only
    names: Sequence[str] = ()  # labels of the categories 0, 1, ...

    def apply(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Set matplotlib's `which` axis, x or y."""
        symmetric = {"linthresh": self.linear, "linscale": 0.4} if self.scale == "symlog" else {}
        getattr(axes, f"set_{which}scale")(self.scale, **symmetric)
        axes.set(**{f"{which}lim": self.ends, f"{which}label": self.label})
        if self.whole:
            axes.locator_params(axis=which, integer=True)
        if self.names:
            getattr(axes, f"set_{which}ticks")(range(len(self.names)), self.names)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve, a row of marks, or both; `band` holds the lower and the upper end at each x."""

    x: ArrayLike
    y: ArrayLike
    label: str = ""  # on a page, curves without one lie behind the others
    colour: str = BLUE
    line: str = "-"  # "-", "--", ":", or "" for marks alone
    mark: str = ""  # "o", "s", "^", or "" for a line alone
    width: float = 1.0  # points
    size: float = 3.5  # points
    alpha: float = 1.0
    hollow: bool = False  # marks through which others show
    stepped: bool = False  # a value holds until the next x
    band: tuple[ArrayLike, ArrayLike] | None = None

    def draw(self, axes: Axes) -> None:
        """Draw onto matplotlib's axes."""
        if self.band:
            step: Literal["post"] | None = "post" if self.stepped else None
            axes.fill_between(self.x, *self.band, step=step, color=self.colour, alpha=0.2, linewidth=0)
        axes.plot(
            self.x,
            self.y,
            label=self.label or None,
            color=self.colour,
            alpha=self.alpha,
            linestyle=self.line,
            linewidth=self.width,
            drawstyle="steps-post" if self.stepped else "default",
            marker=self.mark,
            markersize=self.size,
            markeredgewidth=0.5 * self.hollow,
            markerfacecolor="none" if self.hollow else self.colour,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields; long arrays are thinned evenly, and values that are not finite become null."""
        n = len(np.asarray(self.x))
        kept = np.unique(np.linspace(0, n - 1, min(n, PAGE_POINTS)).astype(int))
        arrays = (np.asarray(values)[kept].tolist() for values in (self.x, self.y, *(self.band or ())))
        x, y, *band = ([finite(value) for value in values] for values in arrays)
        return {**vars(self), "x": x, "y": y, "band": band or None}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curve over two axes, below a title."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Curve]
    legend: Any = ""  # print: where the legend stands; none by default
    reverse: bool = False  # print: the legend begins with the last series
    note: str = ""  # text in the middle

    def draw(self, axes: Axes) -> None:
        """Draw onto matplotlib's axes."""
        for series in self.series:
            series.draw(axes)
        self.x.apply(axes, "x")
        self.y.apply(axes, "y")
        axes.set_title(self.title)
        if self.note:
            axes.text(0.5, 0.5, self.note, transform=axes.transAxes, ha="center")
        if self.legend:
            marks = [series.size for series in self.series if series.mark and not series.line]
            scale = max(1, LEGEND_MARK / max(marks, default=LEGEND_MARK))
            axes.legend(loc=self.legend, reverse=self.reverse, markerscale=scale, handletextpad=0.4, borderaxespad=0.2)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with at most `MOST_NAMELESS` curves without a label."""
        nameless = [series for series in self.series if not series.label]
        named = [series for series in self.series if series.label]
        some = nameless[:: -(-len(nameless) // MOST_NAMELESS) or 1]
        series = [one.to_json() for one in (*some, *named)]
        return {**vars(self), "x": asdict(self.x), "y": asdict(self.y), "series": series}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Panels in rows, below a caption."""

    panels: Sequence[Panel]
    columns: int = 1
    shared: Literal["x", "y"] = "x"  # print: the axis that panels of a column (x) or of a row (y) share
    height: float  # print: inches; the width is that of a page
    caption: str
    key: bool = False  # print: one legend for all panels
    top: tuple[float, str] | None = None  # print: factor from x to a second axis above, and its label

    def draw(self) -> Figure:
        """Return the plot as a figure for print."""
        with canvas(self.caption, self.height) as figure:
            rows = len(self.panels) // self.columns
            in_columns = rows > 1 and self.shared == "x"
            in_rows: Literal["row", "none"] = "row" if self.shared == "y" else "none"
            grid = figure.subplots(rows, self.columns, sharex=in_columns, sharey=in_rows, squeeze=False)
            for panel, axes in zip(self.panels, grid.ravel(), strict=True):
                panel.draw(axes)
            for axes in grid[:-1].ravel() if in_columns else ():
                axes.set_xlabel("")
            if self.key:
                handles, labels = grid[0, 0].get_legend_handles_labels()
                figure.legend(handles, labels, loc="outside lower right", ncols=len(labels))
            if self.top:
                factor, label = self.top
                for axes in grid[0]:
                    above = axes.secondary_xaxis("top", functions=(lambda x: x * factor, lambda u: u / factor))
                    above.set_xlabel(label)
        return figure

    def to_json(self) -> list[dict[str, Any]]:
        """Return the panels for `curves.js`."""
        return [panel.to_json() for panel in self.panels]


def around(values: ArrayLike, label: str = "", scale: str = "linear") -> Axis:
    """Return an axis around the finite values (on a log scale, the positive ones) with a margin."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (scale != "log"))]
    if scale == "log":
        numbers = np.log10(numbers)
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    if low == high:
        room = 1.0 if scale == "log" else MARGIN * (abs(low) or 1.0)
        low, high = low - room, high + room
    margin = MARGIN * (high - low)
    ends = (low - margin, high + margin)
    return Axis(ends=(10 ** ends[0], 10 ** ends[1]) if scale == "log" else ends, label=label, scale=scale)


def top_of(series: Iterable[Curve], least: float = 0.0) -> float:
    """Return an upper end of an axis that shows the greatest value, and at least `least`."""
    values = [np.asarray(ends, float) for one in series for ends in (one.y, *(one.band or ()))]
    numbers = np.concatenate([*values, [0.0]])
    return 1.06 * (max(float(numbers[np.isfinite(numbers)].max()), least) or 1.0)


@contextmanager
def canvas(caption: str, height: float, width: float = WIDTH, **style: Any) -> Iterator[Figure]:
    """Yield an empty figure (sizes in inches) with a caption, in our style."""
    import matplotlib
    from matplotlib.figure import Figure

    look = matplotlib.rc_params_from_file(Path(__file__).with_name("print.mplstyle"), use_default_template=False)
    with matplotlib.rc_context({**look, **style}):  # type: ignore[dict-item]
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(caption, fontsize=8, x=0.01, ha="left", parse_math=False)
        yield figure


def plain(text: str) -> str:
    """Return text that any font can draw, with escapes for characters beyond ASCII."""
    return text.encode("ascii", "backslashreplace").decode()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF, the same bytes every time; return the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return [save_as(figure, stem.with_suffix(suffix)) for suffix in WITHOUT_TIME]


def save_as(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG (200 dpi) or PDF, by the suffix; raises as `check_figure` and `write_whole`."""
    from matplotlib.backend_bases import get_registered_canvas_class

    check_figure(path)
    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    figure.dpi = DPI
    of_format: Any = get_registered_canvas_class(suffix[1:])(figure)  # `savefig` would draw everything twice
    getattr(of_format, f"print_{suffix[1:]}")(buffer, metadata=WITHOUT_TIME[suffix])
    figure.set_layout_engine("none")
    write_whole(path, buffer.getvalue())
    return path


def check_figure(path: Path) -> None:
    """Raise InvalidInput if a file's suffix is not that of a figure."""
    if path.suffix.lower() not in WITHOUT_TIME:
        raise InvalidInput(f"cannot draw {path}: a figure's name ends with {' or '.join(WITHOUT_TIME)}")
