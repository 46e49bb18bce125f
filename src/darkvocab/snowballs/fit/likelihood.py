"""Likelihood of a partition under a hypothesis: its maximum, and the interval of sigma.

Few groups have an exact likelihood. For more there is a composite one, whose standard error needs
Godambe's information: see docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import gammaincinv, ndtri

from ...errors import NoFit
from ...measures.census import Census
from ...numerics import boundaries, round_to, ulp
from ...numerics.grouping import n_cores
from ...runs.records import record_types
from ..snowball import SENTENCES, Snowball, SnowballLaw, draw
from ..theory import Occupancy, Partition, composite_likelihood, partition_likelihood

ERROR_DRAWS = 200  # snowballs drawn for the standard error of a composite estimate: trials 0 to 199
COARSE = 1.2  # ratio of neighbouring sigmas in the first scan of the likelihood
OFFSETS = np.arange(0, 0.5, 0.02)  # of the ridge
IMPOSSIBLE = -1e12  # log-likelihood for optimizers, which cannot subtract infinities
DERIVATIVE_STEPS = {"sigma": 4e-3, "offset": 2e-3, "tokens": 4e-2}  # of each parameter

RidgePoint, ProfilePoint = record_types(Path(__file__).with_suffix(".toml"), __name__)


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """Settings of a `SnowballLaw` without sigma."""

    base: Float64[np.ndarray, " dim"] = field(repr=False)
    grid: str = "bfloat16"
    arithmetic: str = "float32"
    distribution: str = "gaussian"
    offset: float = 0.0  # of every component, in the grid's spacing there

    @cached_property
    def centre(self) -> Float64[np.ndarray, " dim"]:
        """Base moved by the offset."""
        if not self.offset:
            return self.base
        return self.base + self.offset * ulp(round_to(self.base, self.grid), self.grid)

    def law(self, sigma: float) -> SnowballLaw:
        return SnowballLaw(
            base=self.centre, sigma=sigma, grid=self.grid, arithmetic=self.arithmetic, distribution=self.distribution
        )

    def range(self, n_tokens: int) -> tuple[float, float]:
        """Return the sigmas at which nearly all tokens are in one cell and nearly all are alone, as the grid allows."""
        rounded = round_to(self.centre, self.grid).astype(np.float64)
        lower, upper = boundaries(rounded, self.grid)
        near = np.minimum(np.abs(self.centre - lower), np.abs(upper - self.centre))
        spacing = ulp(rounded, self.grid)
        resolved = np.maximum(near, spacing / 65536)[spacing > 0]
        low = float(resolved.min()) / 10
        high = low
        while high < 64 * spacing.max():
            high *= 2
            try:
                if self.law(high).occupancy(n_tokens).log_coincident_pairs < -3:
                    break
            except ValueError:  # overflows
                return low, high / 2
        return low, high


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Maximum of a likelihood. `sigma` is None if there is no maximum: all tokens share a row, or none do."""

    likelihood: Likelihood = field(repr=False)
    hypothesis: Hypothesis
    sigma: float | None
    n_tokens: int
    log_likelihood: float
    range: tuple[float, float]  # of the sigmas that were tried
    theta: Float64[np.ndarray, " parameters"] = field(repr=False)  # log sigma, then the free parameters


def drawn_partitions(snowball: Snowball, trials: range, *, seed: int, like: Partition) -> Iterator[Partition]:
    """Draw these trials of a snowball and yield the partition of each, with singletons if `like` has them."""
    cells = snowball.single_cells() if snowball.has_cells else None

    def partition(trial: int) -> Partition:
        census = Census(draw(snowball, seed=seed, trial=trial, cells=cells).groups())
        return Partition(census.populations, None if like.n_singletons is None else census.n_singletons)

    with ThreadPoolExecutor(n_cores()) as pool:
        yield from (map if cells else pool.map)(partition, trials)  # drawing cells is too quick for threads to pay


class Point(NamedTuple):
    """Hypothesis, sigma and number of tokens at which a likelihood is computed."""

    hypothesis: Hypothesis
    sigma: float
    n_tokens: int

    def occupancy(self) -> Occupancy:
        return self.hypothesis.law(self.sigma).occupancy(self.n_tokens)


class Likelihood:
    """Likelihood of a partition under a hypothesis, as a function of sigma and the parameters in `free`.

    These are "offset", "tokens", both, or none.
    """

    def __init__(self, partition: Partition, hypothesis: Hypothesis, free: tuple[str, ...] = ()) -> None:
        self.partition = partition
        self.hypothesis = hypothesis
        self.free = free
        self.is_exact = partition.is_tractable and not free
        n_tokens = partition.n_tokens
        self.n_tokens = n_tokens if n_tokens is not None else int(partition.populations.sum())

    @property
    def kind(self) -> str:
        return "partition" if self.is_exact else "composite"

    def at(self, sigma: float) -> float:
        """Return the log-likelihood at this sigma, with the hypothesis's other settings; -inf where noise overflows."""
        return self._log(Point(self.hypothesis, sigma, self.n_tokens))

    def of(self, theta: Float64[np.ndarray, " parameters"]) -> float:
        """Return the log-likelihood at log sigma and the free parameters: offset, log of tokens outside black holes."""
        return self._log(self.point(theta))

    def _log(self, point: Point) -> float:
        try:
            if self.is_exact:
                return partition_likelihood(point.hypothesis.law(point.sigma).cells(point.n_tokens), self.partition)
            return composite_likelihood(point.occupancy(), self.partition)
        except ValueError:  # overflows the grid
            return -math.inf

    def point(self, theta: Float64[np.ndarray, " parameters"]) -> Point:
        free = dict(zip(self.free, theta[1:].tolist(), strict=True))
        hypothesis = replace(self.hypothesis, offset=free["offset"]) if "offset" in free else self.hypothesis
        n_tokens = self.n_tokens
        if "tokens" in free:
            alone = math.exp(min(free["tokens"], 30.0))
            n_tokens = round(min(float(self.partition.populations.sum()) + alone, 1e12))
        return Point(hypothesis, math.exp(theta[0]), n_tokens)

    def maximum(self) -> Estimate:
        """Maximize the likelihood after a scan over all sigmas; raises NoFit if it underflows everywhere."""
        low, high = self.hypothesis.range(max(self.n_tokens, 2))
        count = max(8, math.ceil(math.log(high / low) / math.log(COARSE)))
        sigmas = np.geomspace(low, high, count).tolist()
        with ThreadPoolExecutor(n_cores()) as pool:
            logs = list(pool.map(self.at, sigmas))
        best = int(np.argmax(np.where(np.isfinite(logs), logs, -np.inf)))
        if not np.isfinite(logs[best]):
            raise NoFit(SENTENCES["no_fit"].format(low=low, high=high))
        is_open = best in (0, count - 1) and not self.free
        log_sigma, log_likelihood = math.log(sigmas[best]), logs[best]
        if not is_open:
            around = [math.log(sigmas[near]) for near in (max(best - 1, 0), min(best + 1, count - 1))]
            options = {"xatol": 1e-5}
            highest = minimize_scalar(lambda x: -max(self.at(math.exp(x)), IMPOSSIBLE), bounds=around, options=options)
            log_sigma, log_likelihood = float(highest.x), -float(highest.fun)
        theta = np.array([log_sigma])
        if self.free:
            theta, log_likelihood = self._freed(log_sigma, log_likelihood)
        point = self.point(theta)
        return Estimate(
            likelihood=self,
            hypothesis=point.hypothesis,
            sigma=None if is_open else point.sigma,
            n_tokens=point.n_tokens,
            log_likelihood=log_likelihood,
            range=(low, high),
            theta=theta,
        )

    def _freed(self, log_sigma: float, log_likelihood: float) -> tuple[np.ndarray, float]:
        """Maximize over all parameters by a simplex that starts at the best of several offsets (local maxima exist)."""
        best = log_likelihood, 0.0, log_sigma
        for row in ridge(self.partition, self.hypothesis) if "offset" in self.free else []:
            if row.sigma:
                best = max(best, (row.log_likelihood, row.offset, math.log(row.sigma)))
        offset = min(max(best[1], 0.01), 0.49)
        start = np.array([best[2], *(offset if name == "offset" else 2.0 for name in self.free)])
        simplex = start + 0.1 * np.eye(len(start) + 1, len(start), -1)
        options = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-4, "maxiter": 400}
        highest = minimize(lambda theta: -self._inside(theta), start, method="Nelder-Mead", options=options)
        return highest.x, -float(highest.fun)

    def _inside(self, theta: np.ndarray) -> float:
        offset = self.point(theta).hypothesis.offset
        if not 0 <= offset <= 0.5:
            return IMPOSSIBLE * (1 + abs(offset))
        log = self.of(theta)
        return log if math.isfinite(log) else IMPOSSIBLE

    def score(self, theta: np.ndarray, drawn: list[Partition]) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of partitions drawn at theta [drawn, parameters] and the composite information [p, p].

        Derivatives of the log expected number of groups of each size are central differences.
        """
        sizes = np.unique(np.concatenate([partition.sizes[0] for partition in drawn])).astype(np.float64)
        least = 2 if self.partition.n_singletons is None else 1
        log_slopes = []
        slopes = []
        for i, name in enumerate(("sigma", *self.free)):
            ends = []
            for step in (DERIVATIVE_STEPS[name], -DERIVATIVE_STEPS[name]):
                moved = theta.copy()
                moved[i] += step
                occupancy = self.point(moved).occupancy()
                log_counts = np.log(np.maximum(occupancy.spectrum(sizes), 1e-300))
                ends.append((log_counts, occupancy.expected_groups(least)))
            (above, n_above), (below, n_below) = ends
            log_slopes.append((above - below) / (2 * DERIVATIVE_STEPS[name]))
            slopes.append((n_above - n_below) / (2 * DERIVATIVE_STEPS[name]))
        slope = np.array(log_slopes).T
        scores = np.empty((len(drawn), len(theta)))
        information = np.zeros((len(theta), len(theta)))
        for number, partition in enumerate(drawn):
            occurring, counts = partition.sizes
            of_size = slope[np.searchsorted(sizes, occurring)]
            scores[number] = counts @ of_size - np.array(slopes)
            information += (of_size * counts[:, None]).T @ of_size / len(drawn)
        return scores, information


def ridge(partition: Partition, hypothesis: Hypothesis) -> list[Any]:
    """Return a `RidgePoint` with the best sigma at each offset of the base, to show how the two trade off."""
    rows = []
    for offset in OFFSETS.tolist():
        try:
            best = Likelihood(partition, replace(hypothesis, offset=offset)).maximum()
        except NoFit:
            continue
        rows.append(RidgePoint(offset=offset, sigma=best.sigma, log_likelihood=best.log_likelihood))
    return rows


class Uncertainty:
    """Interval of sigma at `level`, and standard errors of the free parameters."""

    def __init__(self, estimate: Estimate, *, level: float, seed: int) -> None:
        self.estimate = estimate
        self.likelihood = estimate.likelihood
        self.level = level
        self.seed = seed

    @cached_property
    def godambe(self) -> tuple[Float64[np.ndarray, "p p"], float]:
        """Covariance of log sigma and the free parameters, and the factor that scales composite likelihood ratios."""
        estimate = self.estimate
        assert estimate.sigma is not None
        snowball = estimate.hypothesis.law(estimate.sigma).snowball(estimate.n_tokens)
        drawn = list(drawn_partitions(snowball, range(ERROR_DRAWS), seed=self.seed, like=self.likelihood.partition))
        scores, information = self.likelihood.score(estimate.theta, drawn)
        inverse = np.linalg.pinv(information)
        covariance = inverse @ np.cov(scores.T).reshape(information.shape) @ inverse
        return covariance, float(covariance[0, 0] / inverse[0, 0])

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Interval of sigma; an end is 0 or infinity where the census bounds sigma on one side only.

        The interval holds the sigmas whose likelihood ratio is large enough, scaled by Godambe's
        information if the likelihood is composite. With other free parameters, it follows from the
        standard error of log sigma.
        """
        sigma = self.estimate.sigma
        log_sigma = float(self.estimate.theta[0])
        if sigma is None:  # all tokens share a row, or none do
            fall = -math.log(1 - self.level)  # the probability of the census falls from 1 to 1 - level
            if log_sigma < math.log(self.estimate.range[0]) + 0.1:
                return 0.0, self._falls(log_sigma, fall, 1)
            return self._falls(log_sigma, fall, -1), math.inf
        if self.likelihood.free:
            far = float(ndtri(0.5 + self.level / 2)) * math.sqrt(self.godambe[0][0, 0])
            factor = math.exp(far) if far < 700 else math.inf  # beyond, the target does not bound sigma
            return sigma / factor, sigma * factor
        scale = 1.0 if self.likelihood.is_exact else self.godambe[1]
        fall = float(gammaincinv(0.5, self.level)) * scale  # half a quantile of chi squared
        return self._falls(log_sigma, fall, -1), self._falls(log_sigma, fall, 1)

    def _falls(self, log_sigma: float, fall: float, side: int) -> float:
        """Return the sigma below (`side` -1) or above (1) at which the log-likelihood has dropped by `fall`."""
        floor = self.likelihood.at(math.exp(log_sigma)) - fall
        step = 1e-3
        while self.likelihood.at(math.exp(log_sigma + side * step)) > floor:
            step *= 2
            if step >= 30:
                return 0.0 if side < 0 else math.inf

        def above(x: float) -> float:
            return max(self.likelihood.at(math.exp(x)) - floor, -1e6)

        return math.exp(brentq(above, log_sigma, log_sigma + side * step, xtol=1e-5))

    def errors(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return standard errors of log sigma and free parameters (NaN: unknown), and correlations with log sigma."""
        covariance, _ = self.godambe
        spread = np.sqrt(np.diag(covariance))
        spread[spread == 0] = np.nan  # the likelihood does not depend on it, as by symmetry at an offset of 0
        free = self.likelihood.free
        return dict(zip(["log_sigma", *free], spread.tolist(), strict=True)), {
            name: float(covariance[0, i] / (spread[0] * spread[i])) for i, name in enumerate(free, 1)
        }

    def profile(self, count: int = 41) -> list[Any]:
        """Return a `ProfilePoint` at each of `count` sigmas, three intervals wide around the estimate."""
        estimate = self.estimate
        low, high = self.interval
        if estimate.sigma is None:
            ends = (high / 30, high * 2) if low == 0 else (low / 2, low * 30)
        else:
            low, high = max(low, estimate.range[0]), min(high, estimate.range[1])
            ends = estimate.sigma * (low / estimate.sigma) ** 3, estimate.sigma * (high / estimate.sigma) ** 3
        sigmas = np.geomspace(*ends, count).tolist()
        logs = [self.likelihood.of(np.array([math.log(sigma), *estimate.theta[1:]])) for sigma in sigmas]
        return [ProfilePoint(sigma=sigma, log_likelihood=log) for sigma, log in zip(sigmas, logs, strict=True)]
