"""Figures for print: their look, and how they are saved."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..landing import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008): colour-blind readers can tell them apart, and so can those who see grey.
BLUE, ORANGE, BLACK = "#0072b2", "#e69f00", "#000000"
WIDTH = 7.0  # inches: of a page
DPI = 200  # of a PNG
WITHOUT_TIME: dict[str, Any] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


@contextmanager
def canvas(caption: str, height: float, width: float = WIDTH, **style: Any) -> Iterator[Figure]:
    """Yield an empty figure (sizes in inches) below a caption, to be drawn on in this style."""
    import matplotlib
    from matplotlib.figure import Figure

    look = matplotlib.rc_params_from_file(Path(__file__).with_name("print.mplstyle"), use_default_template=False)
    with matplotlib.rc_context({**look, **style}):  # type: ignore[dict-item]
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(caption, fontsize=8, x=0.01, ha="left", parse_math=False)
        yield figure


def plain(text: str) -> str:
    """Return text that any font can draw: what is not ASCII as escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF, the same bytes every time; return the paths.

    Both have the layout of the PNG, which is computed once.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    return [save_as(figure, stem.with_suffix(suffix)) for suffix in WITHOUT_TIME]


def save_as(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG (200 dpi) or PDF, as the file's name ends; return the path.

    Raises as `check_figure` and `write_whole`.
    """
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
    """Raise InvalidInput where a file's name is not that of a figure."""
    if path.suffix.lower() not in WITHOUT_TIME:
        raise InvalidInput(f"cannot draw {path}: a figure's name ends with {' or '.join(WITHOUT_TIME)}")
