"""The likelihood of a partition: of all its groups where they are few, else a composite one; and where it is largest.

The composite likelihood needs Godambe's information for its error: see docs/theory.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize, minimize_scalar

from ...errors import NoFit
from ..theory import Occupancy, Partition, composite_likelihood, partition_likelihood
from .model import Estimate, Hypothesis

COARSE = 1.2  # ratio of neighbouring sigmas where the likelihood is first looked at
OFFSETS = np.arange(0, 0.5, 0.02)  # along which the ridge is drawn
IMPOSSIBLE = -1e12  # logarithm, for the simplex, which knows no infinity
STEPS = {"sigma": 4e-3, "offset": 2e-3, "tokens": 4e-2}  # of the parameters, for derivatives


class Point(NamedTuple):
    """A hypothesis with all its parameters."""

    hypothesis: Hypothesis
    sigma: float
    n_tokens: int

    def occupancy(self) -> Occupancy:
        return self.hypothesis.law(self.sigma).occupancy(self.n_tokens)


@dataclass(frozen=True, kw_only=True)
class RidgePoint:
    """At an offset of the base the best sigma, and the log-likelihood there."""

    offset: float
    sigma: float | None
    log_likelihood: float


class Likelihood:
    """The likelihood of a partition under a hypothesis, as a function of sigma and, where asked, of more.

    Parameters
    ----------
    free : "offset", "tokens", or both, beside sigma
    """

    def __init__(self, partition: Partition, hypothesis: Hypothesis, free: tuple[str, ...] = ()) -> None:
        self.partition, self.hypothesis, self.free = partition, hypothesis, free
        self.is_exact = partition.is_tractable and not free
        n_tokens = partition.n_tokens
        self.n_tokens = n_tokens if n_tokens is not None else int(partition.populations.sum())

    @property
    def kind(self) -> str:
        return "partition" if self.is_exact else "composite"

    def at(self, sigma: float) -> float:
        """Return its logarithm at this sigma, all else as the hypothesis has it; -inf where noise overflows."""
        return self._log(Point(self.hypothesis, sigma, self.n_tokens))

    def of(self, theta: Float64[np.ndarray, " parameters"]) -> float:
        """Return its logarithm at log sigma and the free parameters: offset, log of the tokens beyond black holes."""
        return self._log(self.point(theta))

    def _log(self, point: Point) -> float:
        try:
            if self.is_exact:
                return partition_likelihood(point.hypothesis.law(point.sigma).cells(point.n_tokens), self.partition)
            return composite_likelihood(point.occupancy(), self.partition)
        except ValueError:  # overflows the grid
            return -math.inf

    def point(self, theta: Float64[np.ndarray, " parameters"]) -> Point:
        """Return what these parameters stand for."""
        free = dict(zip(self.free, theta[1:].tolist(), strict=True))
        hypothesis, n_tokens = self.hypothesis, self.n_tokens
        if "offset" in free:
            hypothesis = replace(hypothesis, offset=free["offset"])
        if "tokens" in free:
            alone = math.exp(min(free["tokens"], 30.0))
            n_tokens = round(min(float(self.partition.populations.sum()) + alone, 1e12))
        return Point(hypothesis, math.exp(theta[0]), n_tokens)

    def maximum(self) -> Estimate:
        """Find where it is largest, of sigma by a scan over its whole range.

        Raises
        ------
        NoFit
            It underflows at every sigma.
        """
        low, high = self.hypothesis.range(max(self.n_tokens, 2))
        count = max(8, math.ceil(math.log(high / low) / math.log(COARSE)))
        sigmas = np.geomspace(low, high, count).tolist()
        logs = [self.at(sigma) for sigma in sigmas]
        best = int(np.argmax(np.where(np.isfinite(logs), logs, -np.inf)))
        if not np.isfinite(logs[best]):
            raise NoFit(
                f"no sigma from {low:.3g} to {high:.3g} makes these populations around this base: their likelihood "
                "underflows everywhere; give the base they come from, or let it move (--offset fit)"
            )
        is_open = best in (0, count - 1) and not self.free
        theta, log_likelihood = np.array([math.log(sigmas[best])]), logs[best]
        if not is_open:
            theta, log_likelihood = self._refined(sigmas[max(best - 1, 0)], sigmas[min(best + 1, count - 1)])
        if self.free:
            theta, log_likelihood = self._freed(float(theta[0]), log_likelihood)
        point = self.point(theta)
        return Estimate(
            hypothesis=point.hypothesis,
            sigma=None if is_open else point.sigma,
            n_tokens=point.n_tokens,
            log_likelihood=log_likelihood,
            kind=self.kind,
            range=(low, high),
            theta=theta,
        )

    def _refined(self, low: float, high: float) -> tuple[np.ndarray, float]:
        """The maximum over sigma between these two, all else as the hypothesis has it."""
        around = math.log(low), math.log(high)
        best = minimize_scalar(
            lambda x: -self.at(math.exp(x)), bounds=around, method="bounded", options={"xatol": 1e-5}
        )
        return np.array([float(best.x)]), -float(best.fun)

    def _freed(self, log_sigma: float, log_likelihood: float) -> tuple[np.ndarray, float]:
        """The maximum over all parameters, by a simplex from the best of several offsets, for there can be several."""
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
        """Return scores of partitions drawn at theta [drawn, parameters], and the composite's information [p, p].

        Derivatives of the logarithm of every population's expected number, by central differences.
        """
        sizes = np.unique(np.concatenate([partition.sizes[0] for partition in drawn])).astype(np.float64)
        least = 2 if self.partition.n_singletons is None else 1
        log_slopes, slopes = [], []
        for i, name in enumerate(("sigma", *self.free)):
            ends = []
            for step in (STEPS[name], -STEPS[name]):
                moved = theta.copy()
                moved[i] += step
                occupancy = self.point(moved).occupancy()
                log_counts = np.log(np.maximum(occupancy.spectrum(sizes), 1e-300))
                ends.append((log_counts, occupancy.expected_groups(least)))
            (above, n_above), (below, n_below) = ends
            log_slopes.append((above - below) / (2 * STEPS[name]))
            slopes.append((n_above - n_below) / (2 * STEPS[name]))
        slope = np.array(log_slopes).T
        scores, information = np.empty((len(drawn), len(theta))), np.zeros((len(theta), len(theta)))
        for number, partition in enumerate(drawn):
            occurring, counts = partition.sizes
            of_size = slope[np.searchsorted(sizes, occurring)]
            scores[number] = counts @ of_size - np.array(slopes)
            information += (of_size * counts[:, None]).T @ of_size / len(drawn)
        return scores, information


def ridge(
    partition: Partition, hypothesis: Hypothesis, offsets: Float64[np.ndarray, " offsets"] = OFFSETS
) -> list[RidgePoint]:
    """Return at each offset of the base the best sigma, and the log-likelihood there: where they trade off."""
    rows = []
    for offset in offsets.tolist():
        try:
            best = Likelihood(partition, replace(hypothesis, offset=offset)).maximum()
        except NoFit:
            continue
        rows.append(RidgePoint(offset=offset, sigma=best.sigma, log_likelihood=best.log_likelihood))
    return rows
