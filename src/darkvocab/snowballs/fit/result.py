"""Result of a fit: the estimate, how sure and how good it is, and what else explains the census."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ...text import Shown, finite
from ..theory import Moments
from .alternatives import Explanation
from .checks import Bound, Check, Rank
from .evidence import Association, Column, Gap
from .likelihood import RidgePoint
from .targets import Target
from .uncertainty import ProfilePoint

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FittedSettings:
    """Settings of a fit, as they were used."""

    base: str
    hidden_dim: int
    grid: str
    arithmetic: str
    distribution: str
    free: list[str]  # parameters that were fitted
    level: float
    draws: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The expected census at the estimate, and the expected tokens in the likeliest cells."""

    n_unique: Moments
    n_singletons: Moments
    n_black_holes: Moments
    black_hole_population: Moments
    largest: list[float]


@dataclass(frozen=True, kw_only=True, repr=False)
class FitResult(Shown):
    """Everything that a fit found (`docs/files.md` explains the keys of its JSON).

    What has a default is left out of the JSON where it is None.
    """

    schema_version: int = SCHEMA_VERSION
    target: Target
    settings: FittedSettings
    sigma: float | None  # None: the target bounds it on one side only
    log_likelihood: float
    likelihood: str  # "partition" or "composite"
    interval: tuple[float, float]  # of sigma; from 0, or to infinity, where it is bounded on one side only
    offset: float
    n_tokens: int
    expected: Nearest | None = None
    errors: dict[str, float] | None = None
    correlation_with_log_sigma: dict[str, float] | None = None
    checks: list[Check]
    ranks: list[Rank]
    profile: list[ProfilePoint]
    bound: Bound
    columns: list[Column] | None
    gap: Gap | None
    association: Association | None
    hypotheses: list[Explanation] | None
    ridge: list[RidgePoint] | None
    packages: dict[str, str]

    def _shown(self) -> dict[str, Any]:
        names = "sigma", "interval", "log_likelihood", "likelihood", "offset", "n_tokens", "bound"
        return {"target": self.target.name, **{name: getattr(self, name) for name in names}}

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; what is infinite is null."""
        partition = self.target.partition
        target = {
            "name": self.target.name,
            "populations": partition.populations.tolist(),
            "n_singletons": partition.n_singletons,
            "n_tokens": partition.n_tokens,
            "remark": self.target.remark,
        }
        given = {one.name: getattr(self, one.name) for one in fields(self) if not _is_left_out(self, one)}
        made: dict[str, Any] = _plain({**given, "target": target})
        return made


def _is_left_out(of: Any, one: Any) -> bool:
    return one.default is None and getattr(of, one.name) is None


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, numbers without end as None."""
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value) if not _is_left_out(value, one)}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return finite(value) if isinstance(value, float) else value
