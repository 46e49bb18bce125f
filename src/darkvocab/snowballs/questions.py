"""Questions (13.5a): does rounding alone connect a snowball, at the grid's limit, with plausible populations?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..gpu.batch import Asked
from ..measures.census import Census
from ..numerics import Touching, round_to, ulp
from .bases import DRAWN
from .columns import Provenance
from .law import Snowball
from .on_device import MeasuredCloud
from .run import Clouds
from .snowball import Cloud

SHOWN = 13  # populations kept, of Qwen3-4B's 13 black holes
STEPS = (Touching(1, "steps"), Touching(2, "steps"))


@dataclass(frozen=True, kw_only=True)
class _Seed003:
    """What seed 003 keeps of a sigma, in its order, after the sigma itself."""

    sigma: float
    density: float  # pairs of tokens that touch, of all pairs
    mean_linf: float  # over all pairs of tokens, weight units
    median_linf: float  # the mean of the two middle values
    n_black_holes: int
    demographics: str  # the 13 largest populations, singletons included, as a JSON list


@dataclass(frozen=True, kw_only=True)
class _Ours:
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
    n_columns_coarser: (
        int  # columns of the rounded base whose ulp the threshold does not reach: any move parts two tokens
    )
    point: int
    trial: int


@dataclass(frozen=True, kw_only=True)
class QuestionRecord(Provenance, _Ours, _Seed003):
    """One snowball. The first columns are seed 003's; then come ours, in the reverse order of the bases above."""


class Questions(Clouds[QuestionRecord]):
    """The three questions at every sigma, checked; iterate over it for its records, once or as often as you like.

    Parameters
    ----------
    sigmas : weight units
    touching : when two tokens touch; seed 003's "< 1e-4" by default
    settings : as `Clouds`; by default those of seed 003: 2,221 tokens, a random unit vector redrawn at each sigma
    """

    experiment = "questions"
    record = QuestionRecord

    def __init__(self, sigmas: Iterable[float], *, touching: Touching | None = None, **settings: Any) -> None:
        touching = touching or Touching(1e-4, strict=True)
        if touching.unit != "weight":
            raise InvalidInput("questions hold a threshold in weight units against the grid's steps; give one")
        if given := {"measure", "over"} & settings.keys():
            raise InvalidInput(f"questions have their own {' and '.join(sorted(given))}; ask them with trials")
        base = settings.get("base", "random-unit")
        drawn = {"base": base, "n_tokens": 2221, "redraw_base": isinstance(base, str) and base in DRAWN}
        fixed = {"measure": ("geometry", "steps", "topology"), "over": "tokens", "touching": touching}
        super().__init__(sigmas, **{**drawn, **settings, **fixed})

    def _options(self) -> dict[str, Any]:
        return {
            "fixed-base": self._is_drawn and not self.redraw_base,
            "threshold": self.touching.threshold,
            "inclusive": not self.touching.strict,
        }

    def _asked(self) -> tuple[Asked, ...]:
        return (
            Asked(over="tokens", unit="weight", spread=True, within=(self.touching,)),
            Asked(over="tokens", unit="steps", spread=True, within=STEPS),
        )

    def _measured(self, cloud: Cloud | MeasuredCloud, snowball: Snowball, point: int, trial: int) -> dict[str, Any]:
        census = Census(cloud.groups())
        among = cloud.geometry(census.groups, "tokens")
        pairs = among.in_weight.n_pairs
        near = among.in_weight.within(self.touching.threshold, strict=self.touching.strict)
        within = [among.in_steps.within(near.threshold) for near in STEPS]
        density, *in_steps = (count / pairs if pairs else float(self.n_tokens) for count in (near, *within))
        finer = ulp(round_to(snowball.base, self.grid), self.grid)
        finer = finer >= self.touching.threshold if self.touching.strict else finer > self.touching.threshold
        return {
            "sigma": self.sigmas[point],
            "density": density,
            "mean_linf": among.weight.mean,
            "median_linf": among.weight.median,
            "n_black_holes": census.n_black_holes,
            "demographics": json.dumps(sorted(census.groups.counts.tolist(), reverse=True)[:SHOWN]),
            "n_tokens": self.n_tokens,
            "hidden_dim": self.dim,
            "n_unique": census.n_unique,
            "n_singletons": census.n_singletons,
            "black_hole_population": census.black_hole_population,
            "max_linf": among.weight.max,
            "max_linf_steps": int(among.steps.max),
            "mean_linf_steps": among.steps.mean,
            "median_linf_steps": among.steps.median,
            "density_1_step": in_steps[0],
            "density_2_steps": in_steps[1],
            "touching": str(self.touching),
            "n_columns_coarser": int(finer.sum()),
            "point": point,
            "trial": trial,
        }
