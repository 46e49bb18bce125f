"""A published figure beside ours."""

from __future__ import annotations

from dataclasses import dataclass

AGREES, DIFFERS, UNCHECKED = "yes", "NO", "cannot be checked"


@dataclass(frozen=True)
class Comparison:
    """One published figure, ours, and the verdict: "yes", "NO" or "cannot be checked"; a note says why."""

    figure: str
    published: str
    here: str
    agrees: str
    note: str | None = None


def compare(figure: str, published: object, here: object, *, uncheckable: str | None = None) -> Comparison:
    verdict = UNCHECKED if uncheckable else AGREES if str(published) == str(here) else DIFFERS
    return Comparison(figure, str(published), str(here), verdict, uncheckable)
