"""Text and numbers, made safe to print."""

from __future__ import annotations

import math


def printable(text: str) -> str:
    """Return text that leaves a terminal as it was: control, format and unassigned characters as escapes.

    Examples
    --------
    >>> print(printable("a\\x1b[2Jb\\u202ec"))
    a\\x1b[2Jb\\u202ec
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def finite(value: float | None) -> float | None:
    """Return a number that JSON has: None in place of NaN and the infinities.

    Examples
    --------
    >>> finite(0.5), finite(float("inf")), finite(None)
    (0.5, None, None)
    """
    return value if value is not None and math.isfinite(value) else None
