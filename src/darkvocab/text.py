"""Text from files, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text that leaves a terminal as it was: control, format and unassigned characters as escapes.

    Examples
    --------
    >>> print(printable("a\\x1b[2Jb\\u202ec"))
    a\\x1b[2Jb\\u202ec
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shorten(text: str, width: int) -> str:
    """Return at most `width` characters of a text; three dots stand for what is left out."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
