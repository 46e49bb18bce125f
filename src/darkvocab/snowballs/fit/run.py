"""Fit a snowball to an observed census: settings and their checks, and all parts of the result."""

from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInput, NoFit, at_least
from ...numerics import as_grid, round_to
from ...numerics.cells import DRAWN, INDEPENDENT
from ...progress import Report
from ...runs.folder import versions
from ...runs.randomness import check_seed
from ...runs.records import record_types
from ...text import Shown, plain
from ..bases import load_base
from ..snowball import SENTENCES
from ..theory import Moments, Partition
from . import checks
from .checks import Explanation, alternatives
from .likelihood import Estimate, Hypothesis, Likelihood, Uncertainty, ridge
from .targets import ObservedCensus, load_target

SCHEMA_VERSION = 1

(FittedSettings,) = record_types(Path(__file__).with_suffix(".toml"), __name__)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Expected census at the estimate, and the expected populations of the likeliest cells."""

    n_unique: Moments
    n_singletons: Moments
    n_black_holes: Moments
    black_hole_population: Moments
    largest: list[float]


@dataclass(frozen=True, kw_only=True, repr=False)
class FitResult(Shown):
    """Result of a fit; `docs/files.md` explains the keys of its JSON.

    Fields with a default are left out of the JSON where they are None.
    """

    schema_version: int = SCHEMA_VERSION
    target: ObservedCensus
    settings: Any  # `FittedSettings`
    sigma: float | None  # None: the census bounds it on one side only
    log_likelihood: float
    likelihood: str  # "partition" or "composite"
    interval: tuple[float, float]  # of sigma; an end is 0 or infinity where there is no bound
    offset: float
    n_tokens: int
    expected: Nearest | None = None
    errors: dict[str, float] | None = None
    correlation_with_log_sigma: dict[str, float] | None = None
    checks: list[Any]  # of `checks.Check`
    ranks: list[Any]  # of `checks.Rank`
    profile: list[Any]  # of `likelihood.ProfilePoint`
    bound: Any  # `checks.Bound`
    columns: list[Any] | None  # of `checks.Column`
    gap: Any  # `checks.Gap`, or None
    association: Any  # `checks.Association`, or None
    hypotheses: list[Explanation] | None
    ridge: list[Any] | None  # of `likelihood.RidgePoint`
    packages: dict[str, str]

    def _shown(self) -> dict[str, Any]:
        names = ("sigma", "interval", "log_likelihood", "likelihood", "offset", "n_tokens", "bound")
        return {"target": self.target.name, **{name: getattr(self, name) for name in names}}

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object; infinite numbers become null."""
        return {**plain(self), "target": self.target.to_json()}


LEVEL = 0.9
DRAWS = 1000  # snowballs drawn from the fit for its predictions
MOST_TOKENS = 1_000_000  # in a drawn snowball
FAMILIES = tuple(name for name in INDEPENDENT if name in DRAWN)  # noise with a closed form that can be drawn


@dataclass(repr=False, eq=False)
class Fit(Shown):
    """Maximum-likelihood fit of a snowball to an observed census.

    The likelihood is the probability of the observed partition if it has few groups
    (`partition_likelihood`); otherwise a composite likelihood, whose standard error comes from 200
    snowballs drawn at the estimate (Godambe's information).
    """

    target: Any  # as `load_target` takes it; an `ObservedCensus` after the checks
    _: KW_ONLY
    singletons: int | str | None = None  # as `load_target`; "unknown" fits the number of tokens, too
    base: Any = None  # as `darkvocab.expect`; by default the row of a checkpoint's largest black hole, else "qwen3-4b"
    grid: Any = None  # as `darkvocab.expect`; by default the target's, or bfloat16
    arithmetic: str = "float32"  # as `darkvocab.expect`
    distribution: str = "gaussian"  # or "laplace"; "fit" takes the one with the larger likelihood
    offset: float | str = 0.0  # of every component of the rounded base, in grid spacings, 0 to 1/2; or "fit"
    level: float = LEVEL  # of the interval of sigma
    draws: int = DRAWS  # snowballs drawn from the fit for its predictions
    seed: int = 42
    compare: bool = False  # fit the rival explanations, too

    def __post_init__(self) -> None:
        if not isinstance(self.target, ObservedCensus):
            self.target = load_target(self.target, self.singletons)
        if self.base is None and self.target.base:
            self.base = self.target.base
        else:
            self.base = load_base("qwen3-4b" if self.base is None else self.base, seed=check_seed(self.seed))
        self.grid = as_grid(self.grid or self.target.grid or "bfloat16").name
        if not 0 < self.level < 1:
            raise InvalidInput(f"level must lie between 0 and 1, got {self.level!r}")
        at_least(20, draws=self.draws)
        try:
            moved = 0.0 if self.offset == "fit" else float(self.offset)
        except ValueError:
            raise InvalidInput(f"--offset is a number from 0 to 0.5, or fit; got {self.offset!r}") from None
        if not 0 <= moved <= 0.5:
            raise InvalidInput(f"offset must lie between 0 and 0.5 of the grid's spacing, got {self.offset}")
        self.offset = self.offset if self.offset == "fit" else moved
        n_tokens = self._checked_target()
        if self.distribution not in (*DRAWN, "fit"):
            refused = f"unknown distribution {self.distribution!r}"
            if self.distribution in INDEPENDENT:
                refused = f"{self.distribution} noise cannot be drawn, as a fit does"
            raise InvalidInput(f"{refused}; choose one of {', '.join(FAMILIES)}, fit")
        self.families = FAMILIES if self.distribution == "fit" else (self.distribution,)
        self.free: tuple[str, ...] = ("offset",) if self.offset == "fit" else ()
        if self.target.partition.n_singletons is None:
            self.free += ("tokens",)
        vector = self.lattice if self.offset else self.base.vector
        self.hypothesis = Hypothesis(
            base=vector.astype(np.float64),
            grid=self.grid,
            arithmetic=self.arithmetic,
            distribution=self.families[0],
            offset=moved,
        )
        # Raises InvalidInput for noise without a closed form.
        self.hypothesis.law(float(np.abs(vector).max() or 1.0) * 1e-9).occupancy(n_tokens)

    def _shown(self) -> dict[str, Any]:
        names = ("grid", "arithmetic", "distribution", "offset", "level", "draws", "seed")
        return {"target": self.target.name, "base": self.base.name, **{name: getattr(self, name) for name in names}}

    def _checked_target(self) -> int:
        """Check that the target suits base and grid; return the least number of tokens that it can have."""
        target = self.target
        if target.grid and target.grid != self.grid:
            raise InvalidInput(f"{target.name} is on {target.grid}, not {self.grid}")
        if target.dim is not None and target.dim != self.base.vector.size:
            raise InvalidInput(SENTENCES["other_target_dim"].format(base=self.base, target=target))
        n_tokens = target.partition.n_tokens or int(target.partition.populations.sum()) or 1
        if n_tokens > MOST_TOKENS:
            raise InvalidInput(SENTENCES["too_many"].format(n_tokens=n_tokens, most=MOST_TOKENS))
        return n_tokens

    @cached_property
    def lattice(self) -> np.ndarray:
        """The base on its grid, weight units."""
        return round_to(self.base.vector, self.grid)

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """Fit each family of noise; return the estimate with the largest likelihood, with its uncertainty."""
        estimates = []
        impossible: NoFit | None = None
        for family in self.families:
            likelihood = Likelihood(self.target.partition, replace(self.hypothesis, distribution=family), self.free)
            try:
                estimates.append(likelihood.maximum())
            except NoFit as error:
                impossible = error
        if impossible and not estimates:
            raise impossible
        best = max(estimates, key=lambda estimate: estimate.log_likelihood)
        return Uncertainty(best, level=self.level, seed=self.seed)

    @property
    def estimate(self) -> Estimate:
        return self.uncertainty.estimate

    @property
    def interval(self) -> tuple[float, float]:
        return self.uncertainty.interval

    @cached_property
    def predicted(self) -> list[Partition]:
        return checks.predicted(self.uncertainty, self.draws)

    @property
    def checks(self) -> list[Any]:
        return checks.checks(self.target.partition, self.predicted)

    def hypotheses(self, progress: Report | None = None) -> list[Explanation]:
        """Fit the rival explanations of the notebooks, as `checks.alternatives`."""
        return alternatives(self.estimate, self.base.vector, seed=self.seed, progress=progress)

    def result(self, progress: Report | None = None) -> FitResult:
        """Return all results; rival explanations and the ridge if they were asked for."""
        estimate = self.estimate
        partition = self.target.partition
        index = self.target.index
        populations = partition.populations
        on_lattice = replace(estimate.likelihood.hypothesis, base=self.lattice.astype(np.float64))
        errors, correlation = self.uncertainty.errors() if self.free and estimate.sigma is not None else (None, None)
        return FitResult(
            target=self.target,
            settings=FittedSettings(
                base=self.base.name,
                hidden_dim=self.base.vector.size,
                distribution=estimate.hypothesis.distribution,
                free=["sigma", *self.free, *(["distribution"] if len(self.families) > 1 else [])],
                **{name: getattr(self, name) for name in ("grid", "arithmetic", "level", "draws", "seed")},
            ),
            **{name: getattr(estimate, name) for name in ("sigma", "log_likelihood", "n_tokens")},
            likelihood=estimate.likelihood.kind,
            interval=self.interval,
            offset=estimate.hypothesis.offset,
            expected=self._nearest(),
            errors=errors,
            correlation_with_log_sigma=correlation,
            checks=self.checks,
            ranks=checks.ranks(partition, self.predicted),
            profile=self.uncertainty.profile(),
            bound=checks.bound(estimate, partition),
            columns=None if index is None else checks.columns(index, populations, self.grid),
            gap=None if index is None else checks.gap(index, populations, self.grid),
            association=None if index is None else checks.association(index, populations),
            hypotheses=self.hypotheses(progress) if self.compare else None,
            ridge=ridge(partition, on_lattice) if self.compare or "offset" in self.free else None,
            packages=versions(),
        )

    def _nearest(self) -> Nearest | None:
        estimate = self.estimate
        if estimate.sigma is None:
            return None
        occupancy = estimate.hypothesis.law(estimate.sigma).occupancy(estimate.n_tokens)
        n_largest = max(4, min(len(self.target.partition.populations), checks.RANKS))
        counted = {name: getattr(occupancy, name) for name in Nearest.__dataclass_fields__ if name != "largest"}
        return Nearest(**counted, largest=occupancy.largest(n_largest).tolist())


def fit(target: str | Path | ObservedCensus, **settings: Any) -> FitResult:
    """Fit a snowball to an observed census; arguments as of `Fit`.

    Raises NoFit for populations that no sigma makes around this base.

    Examples
    --------
    >>> result = fit("2055,16,10,10,9", draws=100)
    >>> result.likelihood, f"{result.sigma:.3g}"
    ('partition', '1.46e-09')
    """
    return Fit(target, **settings).result()
