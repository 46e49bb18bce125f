"""Questions (13.5a): does rounding alone connect a snowball, in plausible populations?"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from ..errors import InvalidInput
from ..gpu.batch import DistanceQuery
from ..measures.census import Census
from ..numerics import Touching, round_to, ulp
from .bases import is_drawn
from .columns import Provenance, drawn, record
from .on_device import MeasuredCloud
from .run import records_of
from .settings import MEASURES, RunSettings
from .snowball import Cloud, Draw

SHOWN = 13  # populations kept, of Qwen3-4B's 13 black holes
STEPS = (Touching(1, "steps"), Touching(2, "steps"))
NEAR = Touching(1e-4, strict=True)  # seed 003's threshold


@dataclass(frozen=True, kw_only=True)
class _Question:
    sigma: float
    density: float  # pairs of tokens that touch, of all pairs
    mean_linf: float  # over all pairs of tokens, weight units
    median_linf: float  # the mean of the two middle values
    n_black_holes: int
    demographics: str  # the 13 largest populations, singletons included, as a JSON list; seed 003's last column
    n_tokens: int
    hidden_dim: int
    n_unique: int
    n_singletons: int
    black_hole_population: int
    max_linf: float
    max_linf_steps: int
    mean_linf_steps: float
    median_linf_steps: float  # the mean of the two middle values
    density_1_step: float  # pairs of tokens at most a grid step apart in every column, of all pairs
    density_2_steps: float
    touching: str  # when two tokens touch: inequality, threshold, unit
    n_columns_coarser: int  # columns of the rounded base whose ulp the threshold does not reach: any move parts tokens
    point: int
    trial: int


@dataclass(frozen=True, kw_only=True)
class QuestionRecord(Provenance, _Question):
    """One snowball: first seed 003's columns, in its order, then ours."""


@dataclass(frozen=True, repr=False)
class Questions(RunSettings[QuestionRecord]):
    """Settings of the three questions, checked; by default those of seed 003."""

    experiment: ClassVar[str] = "questions"
    row: ClassVar[type] = QuestionRecord
    _: KW_ONLY
    n_tokens: int = 2221
    base: Any = "random-unit"
    redraw_base: bool | None = None  # type: ignore[assignment]  # by default wherever the base is drawn
    touching: Touching = NEAR  # of two tokens, in weight units
    measure: Any = field(default=MEASURES, init=False)
    over: str = field(default="tokens", init=False)
    epsilon: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.redraw_base is None:
            self._set(redraw_base=is_drawn(self.base))
        self._set(touching=self.touching or NEAR)
        super().__post_init__()

    def _check_measures(self) -> None:
        if self.touching.unit != "weight":
            raise InvalidInput("questions hold a threshold in weight units against the grid's steps; give one")

    @staticmethod
    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        touching = settings["touching"]
        return {
            "fixed_base": is_drawn(settings["base"]) and settings["redraw_base"] is False,
            "threshold": touching.threshold,
            "inclusive": not touching.strict,
        }

    def queries(self) -> tuple[DistanceQuery, ...]:
        return (
            DistanceQuery(over="tokens", unit="weight", spread=True, within=(self.touching,)),
            DistanceQuery(over="tokens", unit="steps", spread=True, within=STEPS),
        )

    def record(self, draw: Draw, cloud: Cloud | MeasuredCloud) -> QuestionRecord:
        census = Census(cloud.groups())
        among = cloud.geometry(census.groups, "tokens")
        n_pairs = among.in_weight.n_pairs
        n_near = among.in_weight.within(self.touching.threshold, strict=self.touching.strict)
        n_within = [among.in_steps.within(steps.threshold) for steps in STEPS]
        density, *in_steps = (count / n_pairs if n_pairs else float(self.n_tokens) for count in (n_near, *n_within))
        finest = ulp(round_to(draw.snowball.base, self.grid), self.grid)
        is_coarser = finest >= self.touching.threshold if self.touching.strict else finest > self.touching.threshold
        values = drawn(self, draw, cloud, census) | {
            "density": density,
            **{f"{name}_linf": getattr(among.weight, name) for name in ("max", "mean", "median")},
            **{f"{name}_linf_steps": getattr(among.steps, name) for name in ("mean", "median")},
            "demographics": json.dumps(sorted(census.groups.counts.tolist(), reverse=True)[:SHOWN]),
            "max_linf_steps": int(among.steps.max),
            "density_1_step": in_steps[0],
            "density_2_steps": in_steps[1],
            "touching": str(self.touching),
            "n_columns_coarser": int(is_coarser.sum()),
        }
        return record(QuestionRecord, values)


def questions(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[QuestionRecord]:
    """Ask of each sigma (weight units) whether rounding alone connects a snowball, and yield the records.

    The `settings` are those of `Questions` and, to run it, of `Options`.

    Examples
    --------
    >>> [record.density for record in questions([0.0], n_tokens=100, dim=20)]
    [1.0]
    """
    return records_of(Questions, sigmas, settings)
