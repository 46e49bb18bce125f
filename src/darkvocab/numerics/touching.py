"""Touching: when two rows count as neighbours. Inequality, threshold and unit are one thing, recorded as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InvalidInput
from .chebyshev import UNITS


@dataclass(frozen=True)
class Touching:
    """When two rows touch: their L-infinity distance is <= (or, `strict`, <) the threshold."""

    threshold: float | int  # weight units, rounded to float32 as distances are; or grid steps
    unit: str = "weight"
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", float(self.threshold))
        if self.unit not in UNITS:
            raise InvalidInput(f"unknown unit {self.unit!r} of touching; choose one of {', '.join(UNITS)}")
        if not (self.threshold >= 0 and math.isfinite(self.threshold)):
            raise InvalidInput(f"touching must be a finite length >= 0 ({self.unit}), got {self.threshold!r}")
        if self.strict and self.threshold <= 2.0**-150:
            raise InvalidInput(
                f"nothing is nearer than {self.threshold!r}: choose a larger threshold, or <= for equal rows"
            )

    def __str__(self) -> str:
        return f"{'<' if self.strict else '<='} {repr(self.threshold).removesuffix('.0')} {self.unit}"
