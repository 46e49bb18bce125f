"""Text and numbers for people: made safe to print, kept short, and shown in a notebook."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from itertools import islice
from typing import Any

MOST_ITEMS = 4  # of a value in brief
MOST_CHARACTERS = 120  # of one of them


def printable(text: str) -> str:
    """Return text with escapes for control, format and unassigned characters, safe for a terminal.

    Examples
    --------
    >>> print(printable("a\\x1b[2Jb\\u202ec"))
    a\\x1b[2Jb\\u202ec
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shorten(text: str, width: int) -> str:
    """Return at most `width` characters of a text; three dots stand for what is left out."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def listed(items: Sequence[str], most: int) -> str:
    """Return items with commas between: at most so many, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def finite(value: float | None) -> float | None:
    """Return a number that JSON has: None in place of NaN and the infinities.

    Examples
    --------
    >>> finite(0.5), finite(float("inf")), finite(None)
    (0.5, None, None)
    """
    return value if value is not None and math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Return a result as JSON-ready data, however deep: dataclasses as objects, tuples as lists, numbers as `finite`.

    A field that is None by default is left out where it is None.
    """
    if is_dataclass(value):
        given = ((one, getattr(value, one.name)) for one in fields(value))
        return {one.name: plain(item) for one, item in given if item is not None or one.default is not None}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return finite(value) if isinstance(value, float) else value


def brief(value: Any, depth: int = 2) -> str:
    """Return a value on one line: of many items the first, of an array or a frame its shape.

    Examples
    --------
    >>> brief(1 / 3), brief(range(9)), brief({"a": 1, "b": None})
    ('0.333333', '[0, 1, 2, 3, ... 9 in all]', '{a: 1, b: None}')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if shape := getattr(value, "shape", None):
        return f"<{type(value).__name__} {' x '.join(f'{n:,}' for n in shape)}>"
    if isinstance(value, Mapping):
        pairs = (f"{printable(str(key))}: {brief(item, depth - 1)}" for key, item in value.items())
        return f"{{{_first(pairs, len(value), depth)}}}"
    if isinstance(value, list | tuple | range):
        return f"[{_first((brief(item, depth - 1) for item in value), len(value), depth)}]"
    text = printable(value if isinstance(value, str) else repr(value))
    text = shorten(text, MOST_CHARACTERS)
    return f"'{text}'" if isinstance(value, str) else text


def _first(items: Iterable[str], n: int, depth: int) -> str:
    shown = MOST_ITEMS if depth else 0
    return ", ".join(islice(items, shown)) + (f"{', ' * bool(shown)}... {n:,} in all" if n > shown else "")


class Shown:
    """Mixin for settings and results: a repr on one line; in a notebook a table, then frames.

    Both show `_shown()`. A dataclass needs `repr=False` to have this repr.
    """

    def _shown(self) -> Mapping[str, Any]:
        """Return what to show, by name; by default the public fields or attributes."""
        names = [field.name for field in fields(self)] if is_dataclass(self) else list(vars(self))
        return {name: getattr(self, name) for name in names if not name.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={brief(v)}' for name, v in self._shown().items())})"

    def _repr_html_(self) -> str:
        shown = self._shown()
        row = "<tr><th style='text-align:left'>{}</th><td style='text-align:left'>{}</td></tr>"
        rows = (row.format(escape(name.replace("_", " ")), escape(brief(value))) for name, value in shown.items())
        parts = [f"<table><caption>{escape(type(self).__name__)}</caption>{''.join(rows)}</table>"]
        for name, value in shown.items():
            if to_html := getattr(value, "_repr_html_", None):
                parts.append(f"<p>{escape(name.replace('_', ' '))}</p>{to_html()}")
        return "".join(parts)
