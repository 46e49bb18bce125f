"""A published figure beside ours, and the figures that were published (`published.toml`)."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

PUBLISHED: dict[str, dict[str, Any]] = tomllib.loads(
    (resources.files(__package__) / "published.toml").read_text("utf-8")
)
AGREES, DIFFERS, UNCHECKED = "yes", "NO", "cannot be checked"


@dataclass(frozen=True)
class Comparison:
    """One published figure, ours, and the verdict: "yes", "NO" or "cannot be checked"; a note says why."""

    figure: str
    published: str
    here: str
    agrees: str
    note: str | None = None


def compare(
    figure: str,
    published: object,
    ours: object,
    *,
    agrees: bool | None = None,
    note: str | None = None,
    uncheckable: str | None = None,
) -> Comparison:
    """Compare two figures, by default as texts; `uncheckable` says why they cannot be compared."""
    if agrees is None:
        agrees = str(published) == str(ours)
    verdict = UNCHECKED if uncheckable else AGREES if agrees else DIFFERS
    return Comparison(figure, str(published), str(ours), verdict, uncheckable or note)
